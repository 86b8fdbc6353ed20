"""The questions of a plan, on a whole target: each fault that would spoil a release is found before its start."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from handlers.core import open_core
from handlers.environment.around import Upstream
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.phases import drift
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Check, Plan
from rehearsal.target import Target
from tests.integration.host.ssh_target import git
from tests.integration.host.upstreams import upstream_server
from tests.integration.set_clock import set_clock

BY_HAND = (Phase.PROBING, Phase.WATCHING)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One target for all tests; each leaves it as it was."""
    home = tmp_path_factory.mktemp("plan")
    try:
        async with Target.create("good", folder=home) as target:
            yield target
    finally:
        shutil.rmtree(home, ignore_errors=True)


def environment(target: Target, **probe: Any) -> Environment:
    """The environment, with keys of its probe replaced."""
    place = load_environment(str(target.environment_path))
    return place.model_copy(update={"probe": place.probe.model_copy(update=probe)})


async def planned(
    target: Target,
    revision: str | None = "fixed",
    scope: tuple[Phase, ...] = EVERYTHING,
    *,
    place: Environment | None = None,
) -> Plan:
    """A plan of one of the target's revisions."""
    async with open_core(place or environment(target)) as core:
        return await make_plan(core, revision and target.revisions[revision], scope)


def failed(plan: Plan) -> list[str]:
    """The sentences of the failed checks."""
    return [check.sentence for check in plan.checks if not check.good]


def warned(plan: Plan) -> list[Check]:
    """The checks that pass with a warning."""
    return [check for check in plan.checks if check.warns]


async def test_a_target_in_order_passes_every_question(target: Target) -> None:
    """A rehearsal is no exception: nothing fails and nothing warns, and each host was asked."""
    plan = await planned(target)
    assert failed(plan) == []
    assert warned(plan) == []
    names = {check.name for check in plan.checks}
    assert {"web-1", "web-2", "rollback", "revision", "tree", "clocks", "queue"} <= names
    assert plan.history_warning == ""


async def test_a_misnamed_field_and_a_wrong_port_are_refused_for_each_host(target: Target) -> None:
    """One typo would take a good release, and its rollback, for failed ones."""
    misnamed = await planned(target, place=environment(target, revision_field="git_sha"))
    assert [sentence.split(";")[0] for sentence in failed(misnamed)] == [
        f"web-{number}: no 'git_sha' in its health answer (probe.revision_field)" for number in (1, 2)
    ]
    assert (
        "did you mean 'revision'?: its keys are database, pid, revision, status, workers.revisions"
        in failed(misnamed)[0]
    )
    place = environment(target)
    web_2 = place.hosts[1].model_copy(update={"health_url": "http://127.0.0.1:1/health"})
    [sentence] = failed(
        await planned(target, place=place.model_copy(update={"hosts": (place.hosts[0], web_2)}))
    )
    assert sentence.startswith("web-2: nothing listens")
    assert "(http://127.0.0.1:1/health), although tsh-erp is active" in sentence


async def test_what_runs_is_compared_with_the_tree_and_history_with_what_runs(target: Target) -> None:
    """Somebody pulled without a restart. And an older revision is called older, with the number of commits."""
    for host in target.hosts:
        git("checkout", "-q", "--detach", target.revisions["slow"], at=host.checkout)
    try:
        plan = await planned(target, "sick")
        by_hand = await planned(target, None, BY_HAND)
    finally:
        for host in target.hosts:
            git("checkout", "-q", "--detach", target.revisions["broken"], at=host.checkout)
    broken, slow, sick = (target.revisions[name][:7] for name in ("broken", "slow", "sick"))
    for found in (plan, by_hand):
        for name in ("web-1", "web-2"):
            mismatch = f"{name}: it runs {broken}, but its tree is on {slow}: restart tsh-erp first"
            assert any(sentence.startswith(mismatch) for sentence in failed(found))
    older = f"{sick} is OLDER than what runs: it goes 1 commit back from {slow}"
    assert (plan.history_warning, [check.sentence for check in warned(plan)]) == (older, [older])


async def test_a_host_that_would_refuse_the_tree_is_named(target: Target) -> None:
    """Each host is examined, not only the first: here a file is in the way on the second one only."""
    in_the_way = target.hosts[1].checkout / "reorder.py"
    in_the_way.write_text("mine")
    try:
        [sentence] = failed(await planned(target, "treacherous"))
    finally:
        in_the_way.unlink()
    assert sentence.startswith("web-2: untracked files in")
    assert "reorder.py" in sentence


async def test_an_upstream_that_is_away_is_a_warning(target: Target) -> None:
    """The plan says so and what follows from it; the release may be planned before it is back."""
    async with upstream_server(503, 503, 200) as server:
        away = Upstream(url=server.url, interval_seconds=0.05)
        place = environment(target).model_copy(update={"upstream": away})
        plan, later = [await planned(target, place=place) for _ in range(2)]
    assert (failed(plan), failed(later), warned(later)) == ([], [], [])
    [warning] = warned(plan)
    assert warning.name == "upstream"
    assert warning.sentence.startswith(
        f"127.0.0.1:{server.port} answers 503 instead of 200: while it is away"
    )
    assert any(check.name == "upstream" and "answers 200" in check.sentence for check in later.checks)


async def test_a_stopped_unit_is_a_warning_for_a_release_only(target: Target) -> None:
    """A release starts it. A watch by hand does not, and is refused."""
    web = target.hosts[0]
    web.systemctl("stop", "tsh-erp")
    try:
        plan = await planned(target)
        by_hand = await planned(target, None, BY_HAND)
    finally:
        web.systemctl("start", "tsh-erp")
    assert failed(plan) == []
    [warning] = warned(plan)
    assert "because tsh-erp is not active: a release starts it" in warning.sentence
    assert failed(by_hand) == [warning.sentence]


async def test_a_forgotten_worker_is_refused(target: Target) -> None:
    """A live worker of another revision, on a machine that no file names, would take the canary."""
    connection = await asyncpg.connect(target.database_url)
    try:
        await connection.execute(
            "INSERT INTO runbook.worker (owner, host, pid, revision) VALUES ('old-7', 'web-9', 7, $1)",
            target.revisions["sick"],
        )
        [sentence] = failed(await planned(target))
        await connection.execute("UPDATE runbook.worker SET revision = ''")
        assert failed(await planned(target)) == []
    finally:
        await connection.execute("DELETE FROM runbook.worker WHERE owner = 'old-7'")
        await connection.close()
    assert f"old-7 on web-9 ({target.revisions['sick'][:7]}): restart or stop them" in sentence


async def test_a_clock_that_is_off_refuses_the_plan_and_a_start(target: Target) -> None:
    """Also a plan that was made before: the clocks are compared again right before the start."""
    async with open_core(environment(target)) as core:
        run = await record_release(core, await planned(target), requested_by="ops-a", reason="")
        assert await drift.since_planned(core, run) == ""
    await set_clock(target.database_url, -1620)
    try:
        [sentence] = failed(await planned(target))
        async with open_core(environment(target)) as core:
            drifted = await drift.since_planned(core, run)
    finally:
        await set_clock(target.database_url, 0)
    words = "the clock of the database is 27 min behind that of the controller, web-1 and web-2"
    assert sentence.startswith(words)
    assert drifted.startswith(words)
