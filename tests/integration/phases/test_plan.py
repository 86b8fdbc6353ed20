"""The questions of a plan, on a whole target: each fault that would spoil a release is found before its start."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from flows.cli.plan_text import lines
from flows.pull_request import bring
from handlers.core import open_core
from handlers.environment.around import Upstream
from handlers.environment.load import load_environment, parse_text
from handlers.environment.model import Environment
from handlers.environment.promoting import Promotion
from handlers.errors import ExitCode, TryAgain
from handlers.phases import drift
from handlers.phases.begin import record_release
from handlers.phases.plan import make_plan, run_checks
from handlers.release.ledger import releases
from handlers.release.only import Only
from handlers.release.override import requested
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Check, Plan
from handlers.release.preflight import failure_of
from handlers.report.gather import gather, texts
from handlers.status.snapshot import read
from rehearsal.target import Target
from tests.integration.forge import stand_in
from tests.integration.forge.bare import Bare, Clone
from tests.integration.forge.hubs import FORGE
from tests.integration.forge.stand_in import Fault, StandIn
from tests.integration.host.ssh_target import CLOSED_PORT, git
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


async def test_a_database_that_is_away_is_no_empty_queue_and_no_refusal(target: Target) -> None:
    """It may be back in a moment: exit code 1, as for each other command. Dead letters are not known, not none."""
    place = environment(target)
    url = re.sub(r":\d+/", f":{CLOSED_PORT}/", place.database.url)
    away = place.model_copy(update={"database": place.database.model_copy(update={"url": url})})
    plan = await planned(target, place=away)
    [sentence] = failed(plan)
    assert "does not answer" in sentence
    assert failure_of(plan.checks).exit_code is ExitCode.OWN_ERROR
    assert "      not known: the queue could not be read" in list(lines(plan))
    with pytest.raises(TryAgain, match="does not answer"):
        async with open_core(away) as core:
            await record_release(core, plan, requested_by="ops-a", reason="")


def test_a_lasting_fault_beside_a_temporary_one_is_refused() -> None:
    """To try again alone does not help."""
    away = Check(name="database", good=False, sentence="away", temporary=True)
    wrong = Check(name="revision", good=False, sentence="unknown")
    fine = Check(name="clocks", good=True, sentence="agree")
    assert failure_of([fine, away]).exit_code is ExitCode.OWN_ERROR
    assert failure_of([away, wrong, fine]).exit_code is ExitCode.REFUSED
    assert str(failure_of([away, wrong, fine])) == "away; unknown"


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


@pytest.mark.parametrize("sign", ["lock", "heartbeat"])
async def test_a_forgotten_worker_is_refused(target: Target, sign: str) -> None:
    """A live worker of another revision, on a machine that no file names, would take the canary.

    One of a version without locks is known by its next heartbeat.
    """
    connection = await asyncpg.connect(target.database_url)
    try:
        await leave_heartbeat(connection, target.revisions["sick"])
        if sign == "lock":
            await connection.execute("SELECT pg_advisory_lock(hashtextextended('old-7', 0))")
            [sentence] = failed(await planned(target))
        else:
            planning = asyncio.create_task(planned(target))
            while not planning.done():
                await connection.execute("UPDATE runbook.worker SET beat_at = now() WHERE owner = 'old-7'")
                await asyncio.wait({planning}, timeout=2)
            [sentence] = failed(await planning)
        await connection.execute("UPDATE runbook.worker SET revision = ''")
        assert failed(await planned(target)) == []
    finally:
        await connection.execute("DELETE FROM runbook.worker WHERE owner = 'old-7'")
        await connection.close()
    assert f"old-7 on web-9 ({target.revisions['sick'][:7]}): restart or stop them" in sentence


async def test_a_worker_that_ended_without_a_goodbye_refuses_nothing(target: Target) -> None:
    """Its last heartbeat is fresh, but no connection of it is left: it ended while the database was away."""
    connection = await asyncpg.connect(target.database_url)
    try:
        await leave_heartbeat(connection, target.revisions["sick"], age="11 seconds")
        assert failed(await planned(target)) == []
    finally:
        await connection.execute("DELETE FROM runbook.worker WHERE owner = 'old-7'")
        await connection.close()


async def leave_heartbeat(connection: asyncpg.Connection, revision: str, age: str = "0") -> None:
    """The row of the worker old-7 on a machine that no file names."""
    await connection.execute(
        "INSERT INTO runbook.worker (owner, host, pid, revision, beat_at) "
        "VALUES ('old-7', 'web-9', 7, $1, now() - $2::text::interval)",
        revision,
        age,
    )


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


async def test_a_person_chooses_the_dead_letters(target: Target) -> None:
    """One by its id; what matches nothing is refused, for else a synthetic event would take its place."""
    scope = (Phase.PROBING, Phase.CANARY)
    async with open_core(environment(target)) as core:
        everything = await make_plan(core, None, scope)
        letter = everything.events[-1]
        one = await make_plan(core, None, scope, only=Only(event=letter.id))
        none = await make_plan(core, None, scope, only=Only(entity="Bill"))
    assert [event.id for event in one.events] == [letter.id]
    assert sum(one.set_aside.values()) == len(everything.events) - 1
    assert "no dead letter that can be drained matches --entity Bill" in failed(none)


async def test_a_release_needs_the_proof_of_the_environment_before(target: Target) -> None:
    """The plan names what is missing and is not good; a release that deploys nothing is not asked; check only warns."""
    file = target.environment_path.with_name("earlier.toml")
    text = target.environment_path.read_text(encoding="utf-8")
    file.write_text(text.replace('name = "rehearsal"', 'name = "earlier"'), encoding="utf-8")
    place = environment(target)
    place = place.model_copy(
        update={"promotion": Promotion(environment="earlier", override_people=("ops-a",))}
    )
    fixed = target.revisions["fixed"][:7]
    try:
        plan = await planned(target, place=place)
        [sentence] = failed(plan)
        assert sentence.startswith(f"no release of {fixed} has succeeded in earlier; release it there first")
        assert failed(await planned(target, None, BY_HAND, place=place)) == []
        async with open_core(place) as core:
            revision = target.revisions["fixed"]
            request = requested("ops-a", "a fix", freeze=False, promotion=True)
            overridden = await make_plan(core, revision, override=request)
            [warning] = [each for each in await run_checks(core, revision) if each.warns]
            [ready] = [each for each in await run_checks(core) if each.name == "promotion"]
    finally:
        file.unlink()
    assert (failed(overridden), [each.person for each in overridden.overrides]) == ([], ["ops-a"])
    assert (warning.name, warning.sentence) == ("promotion", f"{sentence}")
    assert ready.sentence == "the ledger of earlier answers; a release needs its proof of the commit"
    async with open_core(place) as core:
        [gone] = failed(await make_plan(core, revision))
    assert gone.startswith(f"earlier could not be asked whether it has proven {fixed}: cannot read ")


async def test_the_merged_pull_request_is_in_the_plan_and_in_the_ledger(target: Target) -> None:
    """Found by the forge's own word for the revision; a forge that is away only warns."""
    bare, home = Bare(target.folder / "origin.git"), target.folder / "developer"
    git("clone", "--quiet", "--branch", "main", str(bare.folder), str(home), at=target.folder)
    clone = Clone(home)
    git("read-tree", "-u", "--reset", target.revisions["fixed"], at=home)
    before, commit = bare.tip("main"), clone.commit("The fix", {"NOTES.md": "fixed\n"})
    token = target.folder / "forge-token"
    token.write_text(stand_in.TOKEN, encoding="utf-8")
    with stand_in.serving(StandIn(bare)) as forge:
        text = target.environment_path.read_text(encoding="utf-8")
        text += FORGE.format(url=forge.url, repository=stand_in.REPOSITORY, token=token)
        place = parse_text(text, source="the test")
        forge.run(commit, "completed", "success", id=77)
        forge.review("grace", "APPROVED", commit)
        try:
            merged = await bring(place, commit, clone=home, reason="", tell=str, override=None)
            assert merged is not None
            async with open_core(place) as core:
                plan = await make_plan(core, merged.commit)
                assert plan.good, plan.refusal
                assert plan.pull_request == merged
                run = await record_release(core, plan, requested_by="ops-a", reason="a test")
                stored = await releases.plan(core.database, run.id)
                view = await read(core.database, place.name, run.id)
                report = texts(await gather(core, run))
                await releases.enter(core.database, run, Phase.ABORTED)
            sentence = f"merged {commit[:7]} as {merged.commit[:7]} by merger, approved by grace"
            for kind in ("md", "html"):
                assert sentence in report[kind], report[kind]
            assert (stored.pull_request, stored.hash) == (merged, plan.hash)
            assert sentence in str(view)
            assert forge.problems == []
            forge.faults.append(Fault(method="GET", path="/commits/", status=403, times=9))
            async with open_core(place) as core:
                away = await make_plan(core, merged.commit)
            [check] = [each for each in away.checks if each.name == "pull request"]
            assert (check.good, check.warns, away.pull_request) == (True, True, None), check.sentence
        finally:
            git("update-ref", "refs/heads/main", before, at=bare.folder)
