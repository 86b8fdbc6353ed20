"""The controller is killed at every point that the code has, and its release is carried on to the same end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.kill_points import kinds, points
from tests.acceptance.scenario_runs import Scenario, play

pytestmark = pytest.mark.timeout(1800)

GOOD = Scenario(story="good", end="succeeded")
BACK = Scenario(story="treacherous", end="rolled_back")
SYNTHETIC = Scenario(story="empty", end="succeeded")
HELD = Scenario(story="failed-only", end="held")
RESUMED = Scenario(story="failed-only", end="held", then=("resume",))
BACK_BY_HAND = Scenario(
    # Whoever rolls back by hand blames the revision, unless the command says otherwise.
    story="good",
    end="rolled_back",
    then=("rollback",),
    expected=("is in quarantine, although",),
)
ASKED_TO_HOLD = Scenario(story="good", end="held", asked=(("watching", "hold"),))
ASKED_TO_ABORT = Scenario(
    # The host keeps the preparation waiting, so that nothing has changed yet.
    story="good",
    end="aborted",
    asked=(("prepare", "abort"),),
    faults=("host-away@prepare/web-2:12",),
)
REFUSED = Scenario(story="good", end="refused", edits_a_tree=True, expected=("has changes",))
ASKED_BACK = Scenario(story="good", end="rolled_back", asked=(("draining", "abort"),))
NOT_BACK = Scenario(story="treacherous", end="rolled_back", faults=("host-away@rolling_back/web-2:100",))

NOT_KILLED = {
    "handlers.queue.claim.": "the ERP's workers",
    "handlers.queue.room.": "the ERP's workers",
    "handlers.queue.settle.": "the ERP's workers",
    "handlers.queue.wake.": "the ERP's workers",
    "handlers.worker.": "the ERP's workers",
    "handlers.queue.limits.": "a person's command of one transaction: `runbook queue throttle`",
    "handlers.release.ledger.records.lift": "a person's command of one transaction: `runbook unblock`",
    "handlers.release.ledger.requests.ask": "a person's command of one transaction: `runbook hold`, `skip`, `abort`",
    "handlers.release.ledger.guards.page_only": "a person's command of one transaction: `runbook guard --page-only`",
    "handlers.release.ledger.guards.claim": "who takes the checks after a release: test_guarded.py",
    "handlers.release.ledger.guards.free": "who takes the checks after a release",
    "handlers.release.ledger.guards.take": "who takes the checks after a release",
    "handlers.release.ledger.guards.skip": "who takes the checks after a release",
    "step tasks.guard.take": "who takes the checks after a release",
    "handlers.release.settings.adopt_settings": "a person's command of one transaction: `runbook resume --use-file`",
    "handlers.release.lock.record_takeover": "in the transaction that takes the lock, by a person's --take-over",
    "handlers.release.ledger.releases.begin": "the command that plans, before there is a release to carry on",
    "handlers.release.ledger.dead_letters.plan_events": "in the transaction that plans",
    "step tasks.plan.make": "the flow of the Prefect page, before there is a release to carry on",
    "step tasks.plan.record": "the flow of the Prefect page, before there is a release to carry on",
    "step tasks.ledger.unfinished": "the flow of the Prefect page, before it has the lock",
    "step tasks.ledger.last_sentence": "`runbook canary`, `drain` and `watch`, which change no host",
    "step tasks.from_hosts.": "`runbook rollback --from-hosts`, a person's command without the ledger",
}
"""Points that no driver of a release passes, by the begin of their names, and who does."""

SCENARIOS = {
    "rollback.leave": NOT_BACK,
    "[rollback_failed]": NOT_BACK,
    "[refused]": REFUSED,
    "queue.insert": SYNTHETIC,
    "ledger.resume": RESUMED,
    "[held]": HELD,
    "ledger.hold": HELD,
    "rollback.candidate": BACK_BY_HAND,
    "guards.end": BACK_BY_HAND,
    "requests.abort": ASKED_TO_ABORT,
    "[aborted]": ASKED_TO_ABORT,
    "ledger.changed_hosts": ASKED_BACK,
    "requests.": ASKED_TO_HOLD,
    "quarantine": BACK,
    "redrive.restore": BACK,
    "mark_returned": BACK,
    "back-": BACK,
    "roll": BACK,
}
"""Where a driver passes a point: the first part of its name that is found here; otherwise in a good release."""


def scenario_of(point: str) -> Scenario:
    """The scenario in which a driver passes the point."""
    return next((scenario for part, scenario in SCENARIOS.items() if part in point), GOOD)


KILLED = [point for point in points() if not any(name in point for name in NOT_KILLED)]


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-k-") as folder:
        yield Path(folder).resolve()


@pytest.mark.soak
@pytest.mark.parametrize("point", KILLED)
async def test_a_release_survives_the_death_of_its_controller_at_any_point(home: Path, point: str) -> None:
    """It ends as without, on hosts, in the ledger and in the queue. A point that is never passed fails too."""
    scenario = scenario_of(point)
    run = await play(home, scenario, kill_at=point)
    assert run.died, f"no driver of {scenario} passes this point: name another scenario, or who passes it"
    assert run.wrong == (), run.log
    assert run.phase == scenario.end, run.log


def test_every_point_that_is_not_killed_says_who_passes_it() -> None:
    """The list of exceptions names only points that exist."""
    assert [name for name in NOT_KILLED if not any(name in point for point in points())] == []
    assert len(KILLED) > 100
    assert {"activate", "back-activate"} <= set(kinds())
