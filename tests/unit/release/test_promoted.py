"""What the releases of another environment prove about a commit, and who may release without it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers.environment.people import Role
from handlers.environment.promoting import Promotion
from handlers.release.ledger.commit_history import CommitRun
from handlers.release.override import Barrier, OverrideRequest, PlannedOverride, Ruling
from handlers.release.phase import LIVE, Phase
from handlers.release.promoted import Proof, judge, rule

NOW = datetime(2025, 11, 15, 12, tzinfo=UTC)
COMMIT = "4f2c9e1" + "0" * 33
ROLES = (Role(name="lead", people=("Ada L", "ops-b")),)
PROMOTION = Promotion(environment="staging", override_roles=("lead",))


def run(hours: float = 1, phase: Phase = Phase.SUCCEEDED, **fields: Any) -> CommitRun:
    """A release of the commit that ended so many hours ago."""
    ended = None if phase in LIVE or phase is Phase.PLANNED else NOW - timedelta(hours=hours)
    values = {"id": "2025-11-14.3", "reason": "a breach", "deploys": True, "watches": True, "skipped": ()}
    return CommitRun(**{**values, "phase": phase, "finished_at": ended, **fields})


def judged(*runs: CommitRun) -> Proof:
    """What these runs, newest first, prove; they count for a day."""
    return judge(runs, "staging", COMMIT, NOW, max_age_hours=24)


def test_a_release_that_succeeded_is_a_proof_with_its_time() -> None:
    """The sentence names the release, the commit and the time."""
    assert judged(run()) == Proof(
        good=True,
        what="release 2025-11-14.3 of staging proved 4f2c9e1 at Sat 2025-11-15 11:00 UTC",
        release_id="2025-11-14.3",
    )


@pytest.mark.parametrize(
    ("runs", "what", "advice"),
    [
        ((), "no release of 4f2c9e1 has succeeded in staging", "`runbook release 4f2c9e1 -e staging`"),
        ((run(phase=Phase.REFUSED), run(phase=Phase.ABORTED)), "no release of 4f2c9e1", "runbook release"),
        ((run(phase=Phase.PLANNED),), "release 2025-11-14.3 is planned there", "runbook release"),
        ((run(deploys=False),), "no release of 4f2c9e1 has succeeded in staging", "runbook release"),
        ((run(phase=Phase.WATCHING),), "has not ended, it is watching", "`runbook status --watch -e staging`"),
        ((run(phase=Phase.WATCHING), run(2)), "has not ended, it is watching", "wait for its end"),
        ((run(phase=Phase.HELD),), "is held: a breach", "`runbook status -e staging`"),
        ((run(phase=Phase.HELD, deploys=False, id="x"), run(2)), "release x of staging with 4f2c9e1 is held", "resume"),
        ((run(phase=Phase.ROLLED_BACK), run(2)), "is rolled_back: a breach", "release another commit"),
        ((run(phase=Phase.ROLLING_BACK),), "is rolling_back", "release another commit"),
        ((run(phase=Phase.ROLLBACK_FAILED),), "is rollback_failed", "release another commit"),
        ((run(skipped=(Phase.WATCHING,)),), "succeeded without its watching, which was skipped", "a whole release"),
        ((run(25),), "but at Fri 2025-11-14 11:00 UTC: more than 24 h ago", "`runbook watch -e staging`"),
    ],
)  # fmt: skip
def test_everything_else_is_no_proof_and_says_what_to_do(
    runs: tuple[CommitRun, ...], what: str, advice: str
) -> None:
    """A release that never ran is none, and the newest that ran decides, whatever succeeded before it."""
    proof = judged(*runs)
    assert not proof.good
    assert what in proof.what
    assert advice in proof.advice


def test_what_never_ran_hides_no_proof() -> None:
    """A refused plan of the same commit says nothing about it."""
    assert judged(run(phase=Phase.REFUSED), run(phase=Phase.PLANNED), run()).good


def test_a_later_watch_by_hand_renews_a_proof() -> None:
    """The same commit cannot be released twice in a row; a watch that was skipped renews nothing."""
    old = run(30)
    assert judged(run(1, deploys=False), old).good
    for other in (
        run(1, deploys=False, skipped=(Phase.WATCHING,)),
        run(1, deploys=False, watches=False),
        run(1, deploys=False, phase=Phase.ABORTED),
    ):
        assert not judged(other, old).good


def test_the_limit_itself_still_counts() -> None:
    """A proof of exactly this age is not older than it."""
    assert judged(run(24)).good
    assert not judged(run(24.001)).good


def ruled(proof: Proof, person: str = "", reason: str = "a fix", *of: Barrier) -> Ruling:
    """What is said to this person."""
    request = OverrideRequest(person=person, reason=reason, of=frozenset(of or [Barrier.PROMOTION]))
    return rule(proof, PROMOTION, ROLES, request if person else None)


def test_without_a_proof_it_is_refused_with_what_to_do_and_who_may() -> None:
    """One sentence: what, where, what to do."""
    found = ruled(judged())
    assert not found.good
    assert found.sentence == (
        "no release of 4f2c9e1 has succeeded in staging; release it there first: `runbook release 4f2c9e1 -e staging`. "
        "Ada L or ops-b may add --override-promotion --reason REASON"
    )
    closed = rule(judged(), Promotion(environment="staging"), ROLES, None)
    assert closed.sentence.endswith("`runbook release 4f2c9e1 -e staging`")


def test_a_person_of_the_role_may_release_all_the_same() -> None:
    """The ledger gets who, by which right, and why; it reads as a sentence and comes back from JSON."""
    found = ruled(judged(), "ops-b")
    assert (found.good, found.warns) == (True, True)
    assert found.sentence.endswith('in staging; ops-b (role lead) starts it all the same: "a fix"')
    [override] = found.overrides
    assert (override.of, override.by_right) == (Barrier.PROMOTION, "role lead")
    assert PlannedOverride.from_json({**override.__dict__, "of": "promotion"}) == override
    assert PlannedOverride.from_json({"what": "a freeze"}).of is Barrier.FREEZE


@pytest.mark.parametrize(
    ("person", "reason", "of", "fault"),
    [
        ("ops-c", "a fix", Barrier.PROMOTION, "ops-c may not override it: ask Ada L, ops-b"),
        ("ops-b", " ", Barrier.PROMOTION, "give a reason: --reason"),
        ("ops-b", "a fix", Barrier.FREEZE, "release it there first"),
    ],
)
def test_nobody_else_may_and_an_override_of_a_freeze_is_none_of_this(
    person: str, reason: str, of: Barrier, fault: str
) -> None:
    """Each rule is overridden by its own option."""
    found = ruled(judged(), person, reason, of)
    assert (found.good, found.overrides) == (False, ())
    assert fault in found.sentence


def test_an_override_that_is_not_needed_overrides_nothing() -> None:
    """With a proof nothing is recorded."""
    found = ruled(judged(run()), "ops-c", "")
    assert (found.good, found.warns, found.overrides) == (True, False, ())
    assert found.sentence.endswith("(it counts for 24 h)")
