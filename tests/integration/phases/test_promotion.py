"""A release to production needs a proof of staging: two environments, two databases, each with its own ledger."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import open_core
from handlers.environment import frozen
from handlers.environment.load import load_environment
from handlers.phases import drift, promotion_check
from handlers.phases.begin import record_release
from handlers.release.ledger import approvals, releases
from handlers.release.note import PhaseNote
from handlers.release.override import OverrideRequest, requested
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.planned import Check
from handlers.release.preflight import failure_of
from handlers.release.pulled import MergedPull
from rehearsal.postgres import Postgres
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.release.pair import PLACE, PROMOTION, Pair
from tests.integration.release.steps import begun, in_phase, locked, plan_of

COMMIT = "b" * 40
EARLIER = (
    "UPDATE runbook.release SET finished_at = finished_at - make_interval(mins => :minutes) WHERE id = :id"
)


@pytest_asyncio.fixture(loop_scope="session")
async def pair(
    tmp_path: Path, database_url: str, postgres: Postgres, adopted_template: str
) -> AsyncIterator[Pair]:
    """Production, which needs the proof of staging."""
    async with Pair.make(tmp_path, database_url, postgres, adopted_template) as pair:
        pair.write("production", database_url, PROMOTION)
        yield pair


async def asked(pair: Pair, request: OverrideRequest | None = None) -> Check:
    """What production's plan says about the promotion of the commit."""
    found = await promotion_check.check(pair.production, COMMIT, request)
    assert found is not None
    return found[0]


async def aged(pair: Pair, release: Release, minutes: int) -> None:
    """The release ended so long ago."""
    async with pair.staging.begin() as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(text(EARLIER), {"id": release.id, "minutes": minutes})


async def test_staging_s_own_ledger_is_the_proof(pair: Pair, engine: AsyncEngine) -> None:
    """A release of the same name and commit in production's own ledger proves nothing."""
    await in_phase(engine, Phase.SUCCEEDED, "staging")
    before = await asked(pair)
    assert not before.good
    none = "no release of bbbbbbb has succeeded in staging; release it there first: "
    assert before.sentence.startswith(f"{none}`runbook release bbbbbbb -e {pair.folder}/staging.toml`")
    assert not before.temporary
    run = await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    after = await asked(pair)
    assert after.good
    assert after.sentence.startswith(f"release {run.id} of staging proved bbbbbbb at ")


@pytest.mark.parametrize(
    ("phase", "what"),
    [
        (Phase.WATCHING, "has not ended, it is watching"),
        (Phase.HELD, "is held"),
        (Phase.ROLLED_BACK, "is rolled_back"),
        (Phase.ROLLBACK_FAILED, "is rollback_failed"),
        (Phase.REFUSED, "no release of bbbbbbb has succeeded"),
        (Phase.PLANNED, "is planned there"),
    ],
)
async def test_only_a_release_that_succeeded_counts(pair: Pair, phase: Phase, what: str) -> None:
    """Each other end is named, and refuses with 5."""
    await in_phase(pair.staging, phase, "staging")
    check = await asked(pair)
    assert (check.good, what in check.sentence) == (False, True), check.sentence
    assert failure_of([check]).exit_code == 5


async def test_another_environment_or_commit_in_staging_s_ledger_is_no_proof(pair: Pair) -> None:
    """One ledger may have several environments."""
    await in_phase(pair.staging, Phase.SUCCEEDED, "qa")
    found = await promotion_check.check(pair.production, "c" * 40)
    assert found is not None
    assert not found[0].good
    assert not (await asked(pair)).good


def merged(commit: str, **changes: object) -> MergedPull:
    """A pull request that merged the proven commit."""
    pull = MergedPull(number=7, url="https://forge.example/7", head=COMMIT, commit=commit, same_files=True)
    return replace(pull, **changes)  # type: ignore[arg-type]


async def test_a_proof_counts_for_the_merge_of_the_same_files(pair: Pair) -> None:
    """A squash makes another commit, which staging never ran; what it ran are the files."""
    await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    squash = "d" * 40
    for pull, good in (
        (merged(squash), True),
        (None, False),
        (merged(squash, same_files=False), False),
        (merged(squash, head="e" * 40), False),
        (merged("e" * 40), False),
    ):
        found = await promotion_check.check(pair.production, squash, pull=pull)
        assert found is not None
        assert found[0].good is good, (pull, found[0].sentence)
    found = await promotion_check.check(pair.production, squash, pull=merged(squash))
    assert found is not None
    assert "pull request 7 merged it as ddddddd with the same files" in found[0].sentence


@pytest.mark.parametrize("phase", [Phase.ROLLED_BACK, Phase.HELD, Phase.WATCHING])
async def test_a_merge_that_staging_itself_took_back_is_not_proven_by_its_files(
    pair: Pair, phase: Phase
) -> None:
    """What staging says about the very commit counts more than what it said about another one."""
    await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    await in_phase(pair.staging, phase, "staging")
    found = await promotion_check.check(pair.production, COMMIT, pull=merged(COMMIT, head="e" * 40))
    assert found is not None
    assert not found[0].good


async def test_a_proof_gets_too_old(pair: Pair) -> None:
    """By the time of staging's own database."""
    run = await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    await aged(pair, run, 24 * 60 - 1)
    assert (await asked(pair)).good
    await aged(pair, run, 2)
    check = await asked(pair)
    assert "more than 24 h ago; prove it there again: `runbook watch" in check.sentence


async def test_a_skipped_watch_is_no_proof(pair: Pair) -> None:
    """It succeeded by the word of a person, and not by its numbers."""
    run = await in_phase(pair.staging, Phase.WATCHING, "staging")
    note = PhaseNote(skipped_by="ops-b")
    await releases.enter(pair.staging, run, Phase.SUCCEEDED, verdict=Verdict.PASS, note=note)
    assert "succeeded without its watching, which was skipped" in (await asked(pair)).sentence


async def test_a_staging_without_a_ledger_has_proven_nothing(pair: Pair, erp_url: str) -> None:
    """Nobody has ever released there: that is an answer."""
    pair.write("staging", erp_url)
    check = await asked(pair)
    assert (check.temporary, check.sentence.split(";")[0]) == (
        False,
        "no release of bbbbbbb has succeeded in staging",
    )


async def test_a_staging_that_is_away_could_not_be_asked(pair: Pair) -> None:
    """That is no "no release": it may be asked again in a moment, so the exit code is 1."""
    await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    pair.write("staging", f"postgresql://x@127.0.0.1:{CLOSED_PORT}/x")
    check = await asked(pair)
    assert check.sentence.startswith(
        "staging could not be asked whether it has proven bbbbbbb: the database "
    )
    assert "no release" not in check.sentence
    assert (check.good, check.temporary, failure_of([check]).exit_code) == (False, True, 1)
    may = await asked(pair, requested("ops-a", "the server room burns", freeze=False, promotion=True))
    assert (may.good, may.warns, may.temporary) == (True, True, False)
    ready = await promotion_check.can_be_asked(pair.production)
    assert ready is not None
    assert (ready.good, ready.temporary) == (False, True)


async def test_a_login_without_rights_is_told_what_it_needs(pair: Pair) -> None:
    """A person must act first: 5."""
    role = f"reader_{uuid.uuid4().hex[:8]}"
    async with pair.staging.begin() as tx:
        await tx.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'x'"))
    url = make_url(str(load_environment(str(pair.folder / "staging.toml")).database.url))
    pair.write("staging", url.set(username=role, password="x").render_as_string(hide_password=False))
    check = await asked(pair)
    async with pair.staging.begin() as tx:
        await tx.execute(text(f"DROP ROLE {role}"))
    assert "permission denied for schema runbook" in check.sentence
    assert "USAGE on schema runbook, and SELECT on its tables release and phase_record" in check.sentence
    assert failure_of([check]).exit_code == 5


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (None, "cannot read "),
        ("name = ", "is not valid TOML"),
        (PLACE.format(name="qa", url="postgresql://x@127.0.0.1:1/x", port=1), "has the name 'qa'"),
    ],
)
async def test_a_staging_file_that_cannot_be_used_is_named(pair: Pair, file: str | None, fault: str) -> None:
    """Nothing raises: it is a failed check with the file and what is wrong with it."""
    path = pair.folder / "staging.toml"
    path.unlink()
    if file is not None:
        path.write_text(file, encoding="utf-8")
    check = await asked(pair)
    assert check.sentence.startswith("staging could not be asked whether it has proven bbbbbbb: ")
    assert fault in check.sentence
    assert (check.good, failure_of([check]).exit_code) == (False, 5)


async def test_an_environment_cannot_wait_for_itself(pair: Pair, database_url: str) -> None:
    """No release could ever start; and a role that nobody has is a typing error."""
    for more, fault in (
        (PROMOTION.replace('"staging"', '"production"'), "promotion.environment: it names production itself"),
        (f'{PROMOTION}override_roles = ["leads"]\n', "promotion.override_roles: there is no role 'leads'"),
        ('[promotion]\nenvironment = "../x"\n', "promotion.environment"),
        ('[promotion]\nenvironment = "staging"\nmax_age_hours = 0\n', "promotion.max_age_hours"),
    ):
        pair.write("production", database_url, more)
        with pytest.raises(Exception, match=fault):
            _ = pair.production


async def planned(pair: Pair, request: OverrideRequest | None = None) -> tuple[Release, str]:
    """A fresh release to production as its plan was made, and what has changed since, by drift."""
    environment = pair.production
    found = await promotion_check.check(environment, COMMIT, request)
    assert found is not None
    plan = replace(
        plan_of("production"),
        settings=frozen.settings(environment),
        checks=(found[0],),
        overrides=found[1],
    )
    async with open_core(environment) as core:
        run = await record_release(core, plan, requested_by="ops-a", reason="a fix")
        return run, await drift.since_planned(core, run)


async def again(pair: Pair, run: Release) -> str:
    """What has changed since it was planned."""
    async with open_core(pair.production) as core:
        return await drift.since_planned(core, run)


async def test_a_proof_that_is_gone_at_the_start_refuses_also_a_fresh_plan(pair: Pair) -> None:
    """Staging was rolled back a second after the plan; then its database is away."""
    proof = await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    run, changed = await planned(pair)
    assert changed == ""
    back = await releases.enter(pair.staging, await locked(pair.staging, proof), Phase.ROLLING_BACK)
    assert "is rolling_back" in await again(pair, run)
    await releases.enter(pair.staging, back, Phase.ROLLED_BACK, sentence="rolled back: 70 % of 40")
    changed = await again(pair, run)
    assert (
        f"release {proof.id} of staging, the newest of bbbbbbb, is rolled_back: rolled back: 70 %" in changed
    )
    assert changed.endswith("; nothing was changed; run `runbook plan` again afterwards")
    pair.write("staging", f"postgresql://x@127.0.0.1:{CLOSED_PORT}/x")
    assert "staging could not be asked" in await again(pair, run)


async def test_an_override_is_in_the_ledger_and_holds_for_what_was_told(pair: Pair) -> None:
    """It let the release start without any release of staging; not in spite of one that was rolled back since."""
    request = requested("ops-a", "the queue is down", freeze=False, promotion=True, account="root")
    run, changed = await planned(pair, request)
    assert changed == ""
    async with open_core(pair.production) as core:
        [override] = await approvals.overrides(core.database, run.id)
        stored = await releases.plan(core.database, run.id)
    assert override.sentence == (
        "ops-a (by name) starts it although no release of bbbbbbb has succeeded in staging: "
        '"the queue is down"'
    )
    assert stored.overrides[0].of == "promotion"
    await in_phase(pair.staging, Phase.ROLLED_BACK, "staging")
    changed = await again(pair, run)
    assert "is rolled_back" in changed
    assert "; that was not overridden; nothing was changed" in changed


async def test_without_a_promotion_nobody_is_asked(pair: Pair, database_url: str) -> None:
    """Staging may be away for as long as it likes."""
    pair.write("production", database_url)
    (pair.folder / "staging.toml").unlink()
    assert await promotion_check.check(pair.production, COMMIT) is None
    assert await promotion_check.can_be_asked(pair.production) is None
    assert (await begun(pair.staging, "staging")).phase is Phase.PLANNED
