"""`runbook approve` and `runbook reject` as processes, and what the other commands say of a plan that waits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio
from sqlalchemy import text

from handlers.core import Core, open_core
from handlers.environment import frozen
from handlers.environment.load import load_environment
from handlers.phases.begin import record_release
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release
from tests.integration.cli.test_explain import runbook
from tests.integration.phases.test_approve import EXPIRED
from tests.integration.release.steps import plan_of

FILE = """name = "staging"
[database]
url = "{url}"
[ssh]
user = "x"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
web = ["tsh-erp"]
[approval]
needed = 2
people = ["ops-a", "ops-b", "ops-c"]
"""


@pytest_asyncio.fixture(loop_scope="session")
async def core(tmp_path: Path, database_url: str) -> AsyncIterator[Core]:
    """An environment file that asks for two approvals, with a ledger."""
    (tmp_path / "staging.toml").write_text(FILE.format(url=database_url), encoding="utf-8")
    async with open_core(load_environment(str(tmp_path / "staging.toml"))) as core:
        yield core


async def asked(core: Core) -> tuple[Release, str]:
    """A release of ops-a that waits, and the hash of its plan."""
    plan = replace(plan_of(), settings=frozen.settings(core.environment))
    run = await record_release(core, plan, requested_by="ops-a", reason="the dead letters")
    return run, plan.hash


async def test_two_people_let_it_go_on_and_every_view_says_who(core: Core, tmp_path: Path) -> None:
    """4 while it waits for another one, 0 with the last; status, history and the stored plan name both."""
    run, hash_ = await asked(core)
    where = ("-e", str(tmp_path / "staging.toml"))
    words = ("approve", run.id, *where, "--plan", hash_, "--reason", "tested on staging")
    code, out, errors = await runbook("resume", *where)
    assert (code, out) == (5, "")
    assert f"release {run.id} waits for approval, 0 of 2, until " in errors
    assert f"runbook approve {run.id} -e {where[1]} --plan {hash_} --reason REASON" in errors
    code, out, _ = await runbook(*words, "--by", "ops-b")
    assert (code, out) == (4, f"release {run.id}: approved by 1 of 2 (ops-b); ask ops-c\n")
    code, out, _ = await runbook("status", *where)
    assert code == 0
    assert "Approval 1 of 2 (ops-b), until " in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, errors = await runbook(*words, "--by", "ops-a", "--json")
    assert code == 5
    assert "has asked for release" in json.loads(out)["error"]
    code, out, _ = await runbook(*words, "--by", "ops-c", "--json")
    done = json.loads(out)
    assert (code, done["phase"], done["starts"], done["exit_code"]) == (0, "approved", True, 0)
    assert [each["person"] for each in done["approvals"]] == ["ops-b", "ops-c"]
    code, out, _ = await runbook("history", *where, "--json")
    assert [each["person"] for each in json.loads(out)["releases"][0]["approvals"]] == ["ops-b", "ops-c"]
    code, out, _ = await runbook("history", *where)
    assert "approved by ops-b, ops-c" in out
    code, out, _ = await runbook("plan", "--release", run.id, *where)
    assert (code, out.splitlines()[0]) == (0, f"plan {hash_}  staging  aaaaaaa -> bbbbbbb")


async def test_a_rejection_and_a_time_that_is_over_end_it(core: Core, tmp_path: Path) -> None:
    """A rejection is done (0) and the release refused; what nobody approved in time is ended by the timer's command."""
    where = ("-e", str(tmp_path / "staging.toml"))
    first, _ = await asked(core)
    code, out, _ = await runbook("reject", first.id, *where, "--by", "ops-c", "--reason", "not on a Friday")
    assert (code, out) == (
        0,
        f"release {first.id}: rejected by ops-c: not on a Friday; nothing was changed\n",
    )
    second, _ = await asked(core)
    async with core.database.begin() as tx:
        await tx.execute(text(EXPIRED), {"id": second.id})
    code, out, _ = await runbook("resume", "--due", *where)
    assert code == 0
    assert f"release {second.id} is refused: it expired at " in out
    assert [run.phase for run in await releases.history(core.database, "staging")] == [Phase.REFUSED] * 2
