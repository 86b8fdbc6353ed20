"""One commit through staging and production with one command: two whole targets, each with its own hosts and ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.phases import approve as approving
from handlers.release.ledger import releases
from tests.acceptance.killing import Place
from tests.acceptance.test_approved import ONLY_DEPLOY

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

MORE = {
    "staging": "\n[approval]\nneeded = 1\n",
    "production": '\n[approval]\nneeded = 1\n\n[promotion]\nenvironment = "staging"\nmax_age_hours = 1\n',
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the two environments: a target under its own name."""

    place: Place
    file: Path
    ledger: asyncpg.Connection

    async def hosts(self) -> set[str | None]:
        """The revisions that its hosts run."""
        return set((await self.place.running()).values())

    async def let_start(self, release: str) -> None:
        """Approve it as another person, without a start. It only deploys: whether a watch passes is no matter here."""
        await self.ledger.execute(ONLY_DEPLOY, release)
        settings = load_environment(str(self.file))
        async with open_core(settings) as core:
            plan = await releases.plan(core.database, release)
            await approving.approve(
                core.database,
                settings.name,
                release,
                plan=plan.hash,
                by="ops-b",
                reason="tested",
                starts=False,
            )


@dataclass(frozen=True, kw_only=True)
class Both:
    """Staging and production."""

    staging: Stage
    production: Stage

    async def release(self, revision: str, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """The exit code, the objects and stderr of the command, whose words are the same each time."""
        through = f"{self.staging.file},{self.production.file}"
        done: subprocess.CompletedProcess[str] = await self.staging.place.command(
            *("release", revision, "--through", through, "--yes", "--by", "ops-a", "--reason", "the fix"),
            *("--json", "--without-prefect", *words),
            seconds=400,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    """Two targets with the same history of commits, and their files under two names in one folder."""
    home = tmp_path_factory.mktemp("through")
    try:
        (home / "a").mkdir()
        (home / "b").mkdir()
        async with (
            Place.make(home / "a", "good") as first,
            Place.make(home / "b", "good") as second,
        ):
            stages = {}
            for name, place in (("staging", first), ("production", second)):
                text = place.target.environment_path.read_text(encoding="utf-8")
                file = home / f"{name}.toml"
                file.write_text(text.replace('name = "rehearsal"', f'name = "{name}"', 1) + MORE[name])
                stages[name] = Stage(place=place, file=file, ledger=place.ledger)
            yield Both(**stages)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_the_same_command_takes_a_commit_from_staging_to_production(both: Both) -> None:
    """It waits for staging's approval, releases staging, waits for production's, releases it, and then does nothing."""
    staging, production = both.staging, both.production
    fixed, broken = (staging.place.target.revisions[name] for name in ("fixed", "broken"))
    # A tag: staging's hosts say which commit it is.
    code, (first, second), errors = await both.release("fixed")
    assert (code, first["exit_code"], second["release"]) == (4, 4, None), errors
    assert f"`runbook release {fixed} --through {staging.file},{production.file}` goes on" in second["reason"]
    assert (await staging.hosts(), await production.hosts()) == ({broken}, {broken})

    await staging.let_start(first["release"])
    code, (released, waiting), errors = await both.release(fixed)
    assert (released["release"], released["outcome"]) == (first["release"], "succeeded"), (released, errors)
    assert (code, waiting["environment"], waiting["outcome"]) == (4, "production", "planned"), waiting
    assert (await staging.hosts(), await production.hosts()) == ({fixed}, {broken})
    query = "SELECT plan FROM runbook.release WHERE id = $1"
    plan = json.loads(await production.ledger.fetchval(query, waiting["release"]))
    [proof] = [check for check in plan["checks"] if check["name"] == "promotion"]
    assert proof["sentence"].startswith(f"release {first['release']} of staging proved {fixed[:7]} at ")

    await production.let_start(waiting["release"])
    code, (again, last), errors = await both.release(fixed)
    assert (again["release"], last["release"]) == (first["release"], waiting["release"])
    assert (code, last["outcome"], last["exit_code"]) == (0, "succeeded", 0), last["reason"] + errors
    assert await production.hosts() == {fixed}

    code, objects, _ = await both.release(fixed)
    assert (code, [each["release"] for each in objects]) == (0, [first["release"], waiting["release"]])
    for stage in (staging, production):
        assert await stage.ledger.fetchval("SELECT count(*) FROM runbook.release") == 1
