"""Approval on a real target: what waits holds nothing, the timer starts what is approved, and a moved world refuses."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from flows import rollback
from handlers.core import open_core
from handlers.database.migrate import upgrade
from handlers.environment.load import load_environment
from handlers.phases import approve as approving
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Verdict
from tests.acceptance.killing import Place, last
from tests.conftest import engine_for
from tests.integration.release.steps import deploying, plan_of

pytestmark = pytest.mark.timeout(1800)

DEPLOY = (Phase.DEPLOYING,)
CONTRACT = """UPDATE runbook.release SET plan = plan
|| '{"migrations": [{"path": "3.sql", "mark": "contract", "why": "drops a column"}]}' WHERE id = $1"""
ONLY_DEPLOY = """UPDATE runbook.release SET plan = plan
|| '{"scope": ["deploying"], "events": []}' WHERE id = $1"""
PROMOTION = """
[promotion]
environment = "earlier"
"""
FREEZE = """
[[freeze]]
reason = "the books are closed"
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
begins = "00:00"
ends = "00:00"
override_people = ["ops-a"]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One target for all tests, whose environment asks for one approval; each leaves its hosts as they were."""
    home = tmp_path_factory.mktemp("approved")
    try:
        async with Place.make(home, "good") as place:
            with place.target.environment_path.open("a", encoding="utf-8") as file:
                file.write("\n[approval]\nneeded = 1\n")
            yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def every_revision_may_be_released(place: Place) -> None:
    """Lift the quarantines of the tests before."""
    # Before the first release there is no ledger.
    with contextlib.suppress(asyncpg.UndefinedTableError):
        await place.ledger.execute("UPDATE runbook.quarantine SET lifted_at = now() WHERE lifted_at IS NULL")


@contextmanager
def added(place: Place, text: str) -> Iterator[None]:
    """Add something to the environment file."""
    file = place.target.environment_path
    whole = file.read_text()
    file.write_text(whole + text)
    try:
        yield
    finally:
        file.write_text(whole)


async def approve(place: Place, run: str) -> str:
    """Approve it as another person, as the board does; returns what was said."""
    async with open_core(load_environment(place.environment)) as core:
        hash_ = (await releases.plan(core.database, run)).hash
        decided = await approving.approve(
            core.database, "rehearsal", run, plan=hash_, by="ops-b", reason="tested", way="board"
        )
    return decided.sentence


async def test_the_timer_starts_what_is_approved_and_nothing_waits_meanwhile(place: Place) -> None:
    """No lock, no operation, no process while it waits; then one look of the timer deploys it to both hosts."""
    run = await place.plan(requested_by="ops-a", scope=DEPLOY)
    where = ("-e", place.environment)
    due = last(await place.command("resume", "--due", *where, "--json", "--without-prefect"))
    assert not due["environments"][0]["due"], due
    early = await place.command("resume", *where)
    assert early.returncode == 5, early.stdout
    assert "waits for approval, 0 of 1" in early.stderr
    assert await place.rows("SELECT FROM runbook.lock WHERE release_id IS NOT NULL") == []
    assert await place.rows("SELECT FROM runbook.operation") == []
    assert "it starts within a minute" in await approve(place, run.id)
    done = last(await place.command("resume", "--due", *where, "--json", "--without-prefect"))
    [started] = done["environments"]
    assert (started["due"], started["outcome"]["outcome"]) == (True, "succeeded"), done
    assert set((await place.running()).values()) == {place.target.revision}
    sentence = await place.ledger.fetchval(
        "SELECT sentence FROM runbook.phase_record WHERE release_id = $1 AND phase = 'approved'", run.id
    )
    assert sentence.startswith("ops-b, plan ")
    assert '"tested"; lock taken, token ' in sentence
    report = await place.command("report", *where, "-r", run.id, "--markdown")
    assert "| approved by | ops-b, board, " in report.stdout, report.stdout + report.stderr
    back = await rollback.roll_back("rehearsal", reason="the end of a test", requested_by="ops-a")
    assert back.phase is Phase.ROLLED_BACK


async def back_past_its_migrations(place: Place, release: str) -> None:
    """Take it back by hand, as one whose migrations cannot be undone: only with the word of a person."""
    await place.ledger.execute(CONTRACT, release)
    words = ("rollback", "--yes", "-e", place.environment, "--reason", "the end of a test", "--json")
    refused = await place.command(*words)
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert "has 1 contract migration: 3.sql (drops a column)" in last(refused)["error"]
    back = await place.command(*words, "--past-migrations", "--without-prefect")
    assert (back.returncode, last(back)["outcome"]) == (2, "rolled_back"), back.stdout + back.stderr


async def test_an_approved_release_is_refused_when_the_world_has_moved(place: Place) -> None:
    """Another release ran in between, and a host was released by hand: it names what moved, and changes nothing."""
    waiting = await place.plan(requested_by="ops-a", scope=DEPLOY)
    other = await place.plan(place.target.revisions["treacherous"], requested_by="ops-a", scope=DEPLOY)
    started = await place.command(
        "approve", other.id, "-e", place.environment, "--by", "ops-b", "--reason", "urgent", "--start",
        "--plan", await place.ledger.fetchval("SELECT plan_hash FROM runbook.release WHERE id = $1", other.id),
        "--json", "--without-prefect",
    )  # fmt: skip
    assert (started.returncode, last(started)["outcome"]) == (0, "succeeded"), started.stdout + started.stderr
    await approve(place, waiting.id)
    words = ("resume", "--release", waiting.id, "-e", place.environment, "--json", "--without-prefect")
    done = await place.command(*words)
    await back_past_its_migrations(place, other.id)
    assert (done.returncode, last(done)["outcome"]) == (5, "refused"), done.stdout + done.stderr
    treacherous, broken = (place.target.revisions[name][:7] for name in ("treacherous", "broken"))
    assert f"the hosts run {treacherous} now, they ran {broken}" in last(done)["reason"]
    assert f"release {other.id} ({treacherous}) ran in between: it is succeeded" in last(done)["reason"]
    assert "nothing was changed; run `runbook plan" in last(done)["reason"]
    assert await place.rows("SELECT FROM runbook.operation WHERE release_id = $1", waiting.id) == []


async def test_a_freeze_that_begins_while_a_plan_waits_refuses_it(place: Place) -> None:
    """Also an approved one: a freeze is read when the release starts."""
    run = await place.plan(requested_by="ops-a", scope=DEPLOY)
    await approve(place, run.id)
    with added(place, FREEZE):
        done = await place.command("resume", "-e", place.environment, "--json", "--without-prefect")
    assert (done.returncode, last(done)["outcome"]) == (5, "refused"), done.stdout + done.stderr
    assert "a freeze is active until " in last(done)["reason"]
    assert "the books are closed; nothing was changed" in last(done)["reason"]


async def test_in_a_freeze_a_release_is_refused_unless_its_people_say_otherwise(place: Place) -> None:
    """The command and `plan` say until when. An override is in the ledger and in the report, and then it waits."""
    words = (
        "release",
        place.target.revision,
        "-e",
        place.environment,
        "--yes",
        "--json",
        "--reason",
        "a fix",
    )
    with added(place, FREEZE):
        refused = await place.command(*words, "--by", "ops-a")
        stranger = await place.command(*words, "--by", "ops-c", "--override-freeze")
        asked = await place.command(*words, "--by", "ops-a", "--override-freeze")
        status = await place.command("status", "-e", place.environment)
    assert (refused.returncode, "a freeze is active until " in last(refused)["error"]) == (5, True)
    assert stranger.returncode == 5
    assert "ops-c may not override it: ask ops-a" in last(stranger)["error"]
    assert asked.returncode == 4, asked.stdout + asked.stderr
    run = last(asked)["release"]
    [override] = await place.rows("SELECT * FROM runbook.freeze_override")
    assert (override["release_id"], override["person"], override["reason"]) == (run, "ops-a", "a fix")
    assert "Freeze   a freeze is active until " in status.stdout
    assert "Override ops-a (by name) starts it although" in status.stdout
    # Without the freeze in the file the override is of no use, and of no harm.
    rejected = await place.command("reject", run, "-e", place.environment, "--by", "ops-b", "--reason", "no")
    assert rejected.returncode == 0


async def test_a_chain_starts_with_the_commit_that_the_hosts_name_and_waits(place: Place) -> None:
    """Through an environment that has proven it. Each call says the same of the same plan, whatever a tag is called."""
    name, fixed = f"earlier_{uuid4().hex[:8]}", place.target.revision
    file = place.target.environment_path.with_name("earlier.toml")
    url = await place.target.server.create_database(name)
    engine = engine_for(url)
    try:
        await upgrade(engine)
        text = place.target.environment_path.read_text()
        text = re.sub(r"(?m)^url = .*\npassword = .*$", f'url = "{url}"', text, count=1)
        file.write_text(text.replace('name = "rehearsal"', 'name = "earlier"', 1))
        words = ("--through", f"{file},{place.environment}", "--yes", "--by", "ops-a", "--json")
        with added(place, PROMOTION):
            missing = await place.command("release", "fixed", "-e", place.environment, "--yes", "--json")
            proof = await releases.begin(engine, plan=plan_of("earlier", fixed), requested_by="ops-a")
            proof = await deploying(engine, release=proof)
            for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED):
                proof = await releases.enter(engine, proof, phase, verdict=Verdict.PASS)
            asked = [await place.command("release", revision, *words) for revision in ("fixed", fixed)]
            run = last(asked[0])["release"]
            await place.ledger.execute(ONLY_DEPLOY, run)
            await approve(place, run)
            unconfirmed = await place.command("release", fixed, *words[:2], "--json")
            deployed = await place.command("release", fixed, *words, "--without-prefect")
            assert (deployed.returncode, last(deployed)["outcome"]) == (0, "succeeded"), last(deployed)[
                "reason"
            ]
            running = set((await place.running()).values())
            again = await place.command("release", fixed, *words)
            back = await rollback.roll_back("rehearsal", reason="the end of a test", requested_by="ops-a")
    finally:
        await engine.dispose()
        file.unlink(missing_ok=True)
        await place.target.server.drop_database(name)
    assert missing.returncode == 5
    assert last(missing)["error"].startswith(f"no release of {fixed[:7]} has succeeded in earlier")
    for done in asked:
        first, second = (json.loads(line) for line in done.stdout.splitlines())
        assert done.returncode == 4, done.stdout + done.stderr
        assert (first["release"], first["outcome"], first["to"]) == (proof.id, "succeeded", fixed)
        assert (second["release"], second["outcome"], second["to"]) == (run, "planned", fixed)
    assert (unconfirmed.returncode, "not confirmed" in last(unconfirmed)["error"]) == (5, True)
    assert (again.returncode, last(again)["release"], last(again)["outcome"]) == (0, run, "succeeded")
    assert (running, back.phase) == ({fixed}, Phase.ROLLED_BACK)
