"""`runbook release --through staging,production` as a process, on two ledgers: where it goes on, and where it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import open_core
from handlers.environment import frozen
from handlers.environment.load import load_environment
from handlers.phases.begin import record_release
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Verdict
from rehearsal.postgres import Postgres
from tests.integration.cli.test_explain import LIMIT_SECONDS, runbook
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.release.pair import PROMOTION, Pair
from tests.integration.release.steps import in_phase, plan_of

COMMIT = "b" * 40
WORDS = ("release", COMMIT, "--through", "staging,production", "--yes", "--by", "ops-a")


@pytest_asyncio.fixture(loop_scope="session")
async def pair(
    tmp_path: Path, database_url: str, postgres: Postgres, adopted_template: str
) -> AsyncIterator[Pair]:
    """Two environments, whose hosts cannot be reached: what would start is refused by its plan."""
    async with Pair.make(tmp_path, database_url, postgres, adopted_template) as pair:
        pair.write("production", database_url, PROMOTION)
        yield pair


def variables(pair: Pair) -> dict[str, str]:
    """The variables of the user's shell."""
    return {"RUNBOOK_ENVIRONMENTS": str(pair.folder), "XDG_STATE_HOME": str(pair.folder / "state")}


async def chained(pair: Pair, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, the objects of --json, and stderr."""
    code, out, errors = await runbook(*(words or WORDS), "--json", **variables(pair))
    return code, [json.loads(line) for line in out.splitlines()], errors


def ends(objects: list[dict[str, Any]]) -> list[tuple[object, object, object]]:
    """Environment, release and exit code of each object."""
    return [(each["environment"], each["release"], each["exit_code"]) for each in objects]


async def count(engine: AsyncEngine) -> int:
    """How many releases a ledger has."""
    async with engine.begin() as tx:
        return int((await tx.execute(text("SELECT count(*) FROM runbook.release"))).scalar_one())


async def test_what_has_succeeded_everywhere_is_not_released_again(pair: Pair, engine: AsyncEngine) -> None:
    """The same command twice does it once: one object for each environment, and 0."""
    first = await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    second = await in_phase(engine, Phase.SUCCEEDED, "production")
    code, objects, errors = await chained(pair)
    assert (code, errors) == (0, "")
    assert ends(objects) == [("staging", first.id, 0), ("production", second.id, 0)]
    assert {each["to"] for each in objects} == {COMMIT}
    assert (await count(pair.staging), await count(engine)) == (1, 1)
    code, out, _ = await runbook(*WORDS, **variables(pair))
    assert code == 0
    assert f"release {first.id} of staging proved bbbbbbb at " in out
    assert out.splitlines()[-1] == "bbbbbbb is released to staging, production"


async def test_after_staging_has_succeeded_it_goes_on_with_production(
    pair: Pair, engine: AsyncEngine
) -> None:
    """Interrupted in between, it does not release staging again; production has its own plan, refused here."""
    first = await in_phase(pair.staging, Phase.SUCCEEDED, "staging")
    code, objects, errors = await chained(pair)
    assert ends(objects) == [("staging", first.id, 0), ("production", None, code)]
    assert code == 5, errors
    assert "cannot read /none (ssh.key_file)" in objects[1]["error"]
    assert errors.startswith("runbook: production: ")
    assert (await count(pair.staging), await count(engine)) == (1, 0)


@pytest.mark.parametrize(
    ("phase", "exit_code"), [(Phase.HELD, 4), (Phase.ROLLBACK_FAILED, 3)], ids=["held", "not back"]
)
async def test_a_staging_that_needs_a_person_ends_the_chain_with_its_code(
    pair: Pair, engine: AsyncEngine, phase: Phase, exit_code: int
) -> None:
    """Production is not even planned. One sentence says so, and how to go on where that is possible."""
    run = await in_phase(pair.staging, phase, "staging")
    code, objects, _ = await chained(pair)
    assert code == exit_code
    assert ends(objects) == [("staging", run.id, exit_code), ("production", None, exit_code)]
    assert f"release {run.id} is {phase} in staging" in objects[1]["reason"]
    assert await count(engine) == 0
    code, out, _ = await runbook(*WORDS, **variables(pair))
    told = out.splitlines()[-1]
    assert (code, told.startswith(f"production is not released: release {run.id} is {phase} in staging")) == (
        exit_code,
        True,
    )
    again = f"`runbook release {COMMIT} --through staging,production` goes on"
    assert (again in told) is (phase is Phase.HELD), told


async def test_a_plan_that_waits_for_approval_ends_it_and_is_not_planned_twice(
    pair: Pair, engine: AsyncEngine
) -> None:
    """Each environment has its own approval. The same command again says the same of the same plan."""
    pair.write("staging", pair.staging_url, "[approval]\nneeded = 1\n")
    environment = load_environment(str(pair.folder / "staging.toml"))
    async with open_core(environment) as core:
        plan = replace(plan_of("staging"), settings=frozen.settings(environment))
        run = await record_release(core, plan, requested_by="ops-a", reason="a fix")
    for _ in range(2):
        code, objects, _ = await chained(pair)
        assert code == 4
        assert ends(objects) == [("staging", run.id, 4), ("production", None, 4)]
        assert (
            f"runbook approve {run.id} -e staging --plan {plan.hash} --reason REASON" in objects[0]["reason"]
        )
    assert (await count(pair.staging), await count(engine)) == (1, 0)


async def test_a_staging_under_way_is_followed_and_its_rollback_ends_the_chain(
    pair: Pair, engine: AsyncEngine
) -> None:
    """Another controller carries it: no second release begins, and its end is the end of the chain: 2."""
    run = await in_phase(pair.staging, Phase.WATCHING, "staging")
    async with following(pair) as process:
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readline(), LIMIT_SECONDS)
        assert b"plan done" in first
        run = await releases.enter(
            pair.staging, run, Phase.ROLLING_BACK, verdict=Verdict.FAIL, sentence="70 %"
        )
        await releases.enter(pair.staging, run, Phase.ROLLED_BACK, verdict=Verdict.PASS, sentence="back on a")
        out, errors = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    assert (process.returncode, errors) == (2, b"")
    told = out.decode().splitlines()
    assert f"release {run.id}: rolled_back. back on a" in told
    assert told[-1] == f"production is not released: release {run.id} is rolled_back in staging"
    assert (await count(pair.staging), await count(engine)) == (1, 0)


async def test_ctrl_c_detaches_and_says_how_to_go_on(pair: Pair, engine: AsyncEngine) -> None:
    """The release goes on, and production is not begun: 4."""
    run = await in_phase(pair.staging, Phase.WATCHING, "staging")
    async with following(pair) as process:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), LIMIT_SECONDS)
        process.send_signal(signal.SIGINT)
        out, errors = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    assert (process.returncode, errors) == (4, b""), out
    assert out.decode().splitlines()[-1] == (
        f"production is not released: release {run.id} is watching in staging. Once it has succeeded, "
        f"`runbook release {COMMIT} --through staging,production` goes on"
    )
    assert (await releases.get(pair.staging, run.id)).phase is Phase.WATCHING
    assert await count(engine) == 0


async def test_a_release_of_another_commit_is_not_taken_for_this_one(pair: Pair, engine: AsyncEngine) -> None:
    """Staging's plan refuses: another release is live. It names how to go on."""
    run = await in_phase(pair.staging, Phase.HELD, "staging")
    other = ("release", "c" * 40, *WORDS[2:])
    code, objects, errors = await chained(pair, *other)
    assert code == 5
    assert f"release {run.id} is held in staging" in objects[0]["error"]
    assert (
        "the chain ended in staging with exit code 5. Once that is mended, `runbook release ccc"
        in objects[1]["reason"]
    )
    assert "`runbook status -e staging`" in errors
    assert await count(engine) == 0


async def test_a_ledger_that_is_away_is_no_ledger_without_a_release(pair: Pair, engine: AsyncEngine) -> None:
    """1 and not 5, and production is not asked for its own."""
    pair.write("staging", f"postgresql://x@127.0.0.1:{CLOSED_PORT}/x")
    code, objects, _ = await chained(pair)
    assert code == 1
    assert ends(objects) == [("staging", None, 1), ("production", None, 1)]
    assert await count(engine) == 0


class following:  # noqa: N801  A context manager that reads as a verb.
    """The command, followed while it runs; it is ended with the block."""

    def __init__(self, pair: Pair) -> None:
        self._variables: Mapping[str, str] = variables(pair)

    async def __aenter__(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows.cli", *WORDS, "--plain"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **self._variables},
        )
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
