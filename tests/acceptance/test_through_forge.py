"""A commit from a developer's clone to production with one command: two whole targets, and a forge between them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.killing import Place
from tests.acceptance.test_through import MORE, Stage
from tests.integration.forge import stand_in
from tests.integration.forge.bare import Bare, Clone, git
from tests.integration.forge.hubs import FORGE
from tests.integration.forge.stand_in import StandIn

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]


@dataclass(frozen=True, kw_only=True)
class Company:
    """Staging, which runs develop, production, which runs main, and the forge with both branches."""

    staging: Stage
    production: Stage
    forge: StandIn
    clone: Clone

    async def release(self, commit: str) -> tuple[int, list[dict[str, Any]], str]:
        """The exit code, the objects and stderr of the command, typed in the clone; its words are always the same."""
        through = f"{self.staging.file},{self.production.file}"
        words = ("release", commit, "--through", through, "--yes", "--by", "ops-a", "--reason", "the fix")
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "flows.cli", *words, "--json", "--without-prefect"],
            cwd=self.clone.folder, env=self.staging.place.variables,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    """The forge has production's repository; what is pushed to its develop reaches staging's too."""
    home = tmp_path_factory.mktemp("forge")
    try:
        (home / "a").mkdir()
        (home / "b").mkdir()
        async with (
            Place.make(home / "a", "good") as first,
            Place.make(home / "b", "good") as second,
        ):
            bare = Bare(second.target.folder / "origin.git")
            clone = home / "clone"
            git(home, "clone", "--quiet", "--branch", "main", str(bare.folder), str(clone))
            for address in (bare.folder, first.target.folder / "origin.git"):
                git(clone, "remote", "set-url", "--add", "--push", "origin", str(address))
            with stand_in.serving(StandIn(bare)) as forge:
                token = home / "token"
                token.write_text(stand_in.TOKEN, encoding="utf-8")
                stages = {}
                for name, place in (("staging", first), ("production", second)):
                    text = place.target.environment_path.read_text(encoding="utf-8")
                    text = text.replace('name = "rehearsal"', f'name = "{name}"', 1) + MORE[name]
                    if name == "staging":
                        assert text.count("\n[deploy]\n") == 1
                        text = text.replace("\n[deploy]\n", '\n[deploy]\nbranch = "develop"\n')
                    else:
                        text += FORGE.format(url=forge.url, repository=stand_in.REPOSITORY, token=token)
                        text += "review_seconds = 0.5\n"
                    file = home / f"{name}.toml"
                    file.write_text(text, encoding="utf-8")
                    stages[name] = Stage(place=place, file=file, ledger=place.ledger)
                yield Company(**stages, forge=forge, clone=Clone(clone))
                assert forge.problems == []
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_one_command_brings_a_commit_from_a_clone_to_production(company: Company) -> None:
    """Pushed, released to staging, reviewed, merged by squash; production gets the commit of the merge."""
    staging, production, forge = company.staging, company.production, company.forge
    fixed = production.place.target.revisions["fixed"]
    git(company.clone.folder, "checkout", "--quiet", "-b", "work")
    git(company.clone.folder, "read-tree", "-u", "--reset", fixed)
    commit = company.clone.commit("The greenlet fix", {"NOTES.md": "fixed\n"})
    forge.run(commit, "completed", "success", id=77)

    code, objects, errors = await company.release(commit)
    assert (code, objects[0]["environment"], objects[0]["outcome"]) == (4, "staging", "planned"), errors
    assert forge.bare.tip("develop") == commit
    assert forge.pulls == []

    await staging.let_start(objects[0]["release"])
    code, objects, errors = await company.release(commit)
    assert (code, objects[0]["outcome"]) == (4, "succeeded"), errors
    assert "pull request 1 needs 1 more approval" in objects[-1]["error"]
    assert await staging.hosts() == {commit}
    assert f"release {objects[0]['release']} of staging proved {commit[:7]}" in forge.pulls[0].body

    forge.review("grace", "APPROVED", commit)
    code, objects, errors = await company.release(commit)
    assert (code, objects[-1]["environment"], objects[-1]["outcome"]) == (4, "production", "planned"), errors
    merged = forge.bare.tip("main")
    assert (objects[1]["merged"]["commit"], objects[1]["merged"]["approved_by"]) == (merged, ["grace"])

    await production.let_start(objects[-1]["release"])
    code, objects, errors = await company.release(commit)
    assert (code, objects[-1]["outcome"], objects[-1]["to"]) == (0, "succeeded", merged), errors
    assert await production.hosts() == {merged}
    stored = await production.ledger.fetchval(
        "SELECT plan FROM runbook.release WHERE id = $1", objects[-1]["release"]
    )
    plan = json.loads(stored)
    assert plan["pull_request"]["number"] == 1
    [proof] = [each["sentence"] for each in plan["checks"] if each["name"] == "promotion"]
    assert f"proved {commit[:7]} at " in proof
    assert f"pull request 1 merged it as {merged[:7]} with the same files" in proof

    code, objects, _ = await company.release(commit)
    assert (code, forge.count("PUT", "/merge"), forge.count("POST", "/pulls$")) == (0, 1, 1)
