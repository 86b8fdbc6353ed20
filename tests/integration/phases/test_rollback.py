"""What a rollback concludes: only evidence against the revision quarantines it, and every host is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from handlers.core import Core, open_core
from handlers.environment.load import parse
from handlers.errors import LoginRefused
from handlers.host.health import until_healthy
from handlers.host.way_back import HostReturn
from handlers.phases import rollback
from handlers.phases.probe import blaming_for_database
from handlers.release import lock
from handlers.release.ledger import deferred, intents, records, releases
from handlers.release.ledger.deferred import DeferringRecorder
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.host.ssh_target import CLOSED_PORT, serve
from tests.integration.host.test_health import OTHER, SHA, Web, core_of, environment
from tests.integration.release.steps import deploying

BACK = HostReturn(host="web-1", back=True)
AWAY = HostReturn(host="web-2", tries=7, revision="b" * 40, sentence="web-2 cannot be reached: no answer")


def settings(url: str) -> Any:
    """An environment with two hosts that nobody asks."""
    hosts = [
        {"name": name, "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}
        for name in ("web-1", "web-2")
    ]
    return parse(
        {
            "name": "staging",
            "database": {"url": url},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": hosts,
            "deploy": {"directory": "/srv/erp"},
            "services": {"web": ["tsh-erp"]},
        },
        source="test",
    )


async def rolling_back(core: Core, *, blames: bool | None) -> Release:
    """A release whose deploy failed, with or without blame for its revision."""
    release = await deploying(core.database)
    return await releases.enter(
        core.database,
        release,
        Phase.ROLLING_BACK,
        verdict=Verdict.FAIL,
        sentence="web-2 cannot be reached",
        note=PhaseNote(blames_revision=blames),
    )


@pytest.mark.parametrize(("blames", "quarantined"), [(False, False), (True, True), (None, True)])
async def test_only_evidence_against_the_revision_quarantines_it(
    database_url: str, blames: bool | None, quarantined: bool
) -> None:
    """An unreachable host does not; a revision that answers badly does, and so does the note of an older version."""
    async with open_core(settings(database_url)) as core:
        run = await rolling_back(core, blames=blames)
        ended = await rollback.conclude(
            core, run, [BACK, replace(BACK, host="web-2")], why="why", evidence=""
        )
        assert ended.verdict is Verdict.PASS
        found = await records.find_quarantine(core.database, "staging", run.to_revision)
    assert (found is not None) == quarantined


async def test_a_host_that_is_not_back_fails_the_rollback_and_is_named(database_url: str) -> None:
    """With what runs there, how often it was tried, and why; and the sentence says what goes on with it."""
    async with open_core(settings(database_url)) as core:
        run = await rolling_back(core, blames=True)
        ended = await rollback.conclude(core, run, [BACK, AWAY], why="7 of 7 failed", evidence="")
    assert ended.verdict is Verdict.FAIL
    assert ended.sentence.startswith(
        "1 of 2 hosts are back on aaaaaaa. Not back: web-2 (on bbbbbbb, tried 7 times): web-2 cannot be reached"
    )
    assert "run `runbook rollback`; it was started because 7 of 7 failed" in ended.sentence


async def test_hosts_that_answer_again_are_found_without_a_change(tmp_path: Path) -> None:
    """One quick look by SSH: the host that answers is named, the one that refuses connections is not."""
    async with serve(tmp_path, "web-1", "web-2", kind="asyncssh") as target:
        place = target.environment()
        gone = place.hosts[1].model_copy(update={"port": CLOSED_PORT})
        async with core_of(place.model_copy(update={"hosts": (place.hosts[0], gone)})) as core:
            assert await rollback.answering(core, ("web-1", "web-2")) == ("web-1",)
            assert await rollback.answering(core, ("web-2",)) == ()
        assert not target.state().exists()


async def test_a_rollback_that_is_tried_again_keeps_its_first_cause(database_url: str) -> None:
    """However often it fails, its sentence does not grow by the sentences before."""
    async with open_core(settings(database_url)) as core:
        run = await rolling_back(core, blames=True)
        assert await releases.rollback_cause(core.database, run) == "web-2 cannot be reached"
        for number in range(3):
            ended = await rollback.conclude(core, run, [BACK, AWAY], why=run.reason, evidence="")
            run = await releases.enter(
                core.database,
                run,
                Phase.ROLLBACK_FAILED,
                verdict=ended.verdict,
                sentence=ended.sentence,
                note=ended.note,
            )
            cause = await releases.rollback_cause(core.database, run)
            assert cause == "web-2 cannot be reached"
            run = replace(run, token=(await lock.take(core.database, "staging", run.id, f"ops-{number}")))
            run = await releases.enter(
                core.database, run, Phase.ROLLING_BACK, verdict=Verdict.FAIL, sentence=f"again; {cause}"
            )


async def test_what_the_ledger_could_not_be_told_is_recorded_at_the_end(database_url: str) -> None:
    """Intentions and outcomes in order; writing them again changes nothing."""
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    async with open_core(settings(nowhere)) as away, open_core(settings(database_url)) as core:
        run = await rolling_back(core, blames=False)
        recorder = DeferringRecorder(engine=away.database, release=run)
        for host in ("web-1", "web-2"):
            await recorder.intend(f"back-{host}", host, "back-activate", "a command")
        await recorder.confirm("back-web-1", "done", 0, "switched")
        assert len(recorder.unrecorded) == 3
        first = recorder.unrecorded[0]
        recorder.unrecorded[0] = replace(first, at=first.at - 60)
        for _ in range(2):
            await deferred.write(core.database, run, recorder.unrecorded)
        operations = await intents.operations(core.database, run)
        found = [(o.id, o.outcome, o.output) for o in operations]
        # With its own time: who started workers when decides which leases are those of workers that are gone.
        assert 59 < (operations[1].started_at - operations[0].started_at).total_seconds() < 70
    assert found == [("back-web-1", "done", "switched"), ("back-web-2", None, "")]


async def test_a_login_that_the_ledger_refuses_does_not_stop_the_way_back(database_url: str) -> None:
    """While the password is changed, what the ledger cannot be told waits, as for a database that is away."""
    wrong = make_url(database_url).set(password="changed").render_as_string(hide_password=False)
    async with open_core(settings(wrong)) as refused, open_core(settings(database_url)) as core:
        run = await rolling_back(core, blames=False)
        with pytest.raises(LoginRefused):
            await intents.operations(refused.database, run)
        recorder = DeferringRecorder(engine=refused.database, release=run)
        await recorder.intend("back-web-1", "web-1", "back-activate", "a command")
        assert len(recorder.unrecorded) == 1
        await rollback.restore_first(refused, run)
        hosts = (await rollback.fleet(refused, run)).hosts
    assert [host.attempt for host in hosts] == [f"t{run.token}"] * len(hosts)


@pytest.mark.parametrize(
    ("status", "answer", "blames"),
    [
        (503, {"revision": SHA, "database": "ok"}, True),
        (500, "Internal Server Error", True),
        (503, {"revision": SHA, "database": "down"}, False),
        (404, "no such page", False),
        (401, {"error": "who are you"}, False),
        (200, {"revisoin": SHA, "database": "ok"}, False),
        (200, {"revision": OTHER, "database": "ok"}, False),
    ],
)
async def test_an_answer_blames_the_revision_only_for_its_own_fault(
    status: int, answer: Any, blames: bool
) -> None:
    """A 5xx answer does, unless its database is away. A wrong address, a misnamed key or an old process does not."""
    async with Web() as web, core_of(environment(web.url)) as core:
        web.answers = lambda _: (status, answer)
        proven = await until_healthy(core, SHA)
    assert proven.verdict is Verdict.FAIL
    assert proven.blames_revision == blames


@pytest.mark.parametrize(
    ("answer", "blames"),
    [
        ({"revision": SHA, "database": "error"}, True),
        ({"revision": OTHER, "database": "error"}, False),
    ],
)
async def test_a_database_that_only_the_revision_misses_blames_it(answer: Any, blames: bool) -> None:
    """The ledger in the same database answered all the time; a table that does not exist looks like this."""
    async with Web() as web, core_of(environment(web.url)) as core:
        web.answers = lambda _: (503, answer)
        proven = blaming_for_database(await until_healthy(core, SHA))
    assert proven.blames_revision == blames
