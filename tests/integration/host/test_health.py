"""The probe believes only answers with the released revision in them, several in a row, from every host."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.core import Clock, Core
from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.host.command import Command
from handlers.host.facts import inspect
from handlers.host.health import HostHealth, look_once, until_healthy
from handlers.host.ssh import open_hosts
from handlers.release.phase import Verdict, runs
from tests.integration.host.ssh_target import CLOSED_PORT, serve, unit

SHA = "4f2c9e1" + "0" * 33
OTHER = "41aa07c" + "0" * 33


class Web:
    """A web process whose answer the test decides, again for each call."""

    def __init__(self) -> None:
        self.answers: Callable[[int], tuple[Any, ...]] = lambda _: (200, {"revision": SHA, "database": "ok"})
        """The status, a header line if there is one, and the answer: JSON, text or bytes."""
        self.calls = 0
        self.delay = 0.0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Its health address."""
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/health"

    async def __aenter__(self) -> Web:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            status, *header, answer = self.answers(self.calls)
            self.calls += 1
            await asyncio.sleep(self.delay)
            text = answer if isinstance(answer, str | bytes) else json.dumps(answer)
            body = text.encode() if isinstance(text, str) else text
            lines = [*filter(None, header), f"Content-Length: {len(body)}", "Connection: close"]
            head = f"HTTP/1.1 {status} X\r\n" + "\r\n".join(lines) + "\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def environment(*urls: str, **probe: Any) -> Environment:
    """An environment with a host for each address."""
    values = {
        "name": "test",
        "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
        "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
        "hosts": [
            {"name": f"web-{n}", "address": "127.0.0.1", "health_url": url} for n, url in enumerate(urls, 1)
        ],
        "deploy": {"directory": "/none"},
        "services": {},
        "probe": {
            "consecutive": 3,
            "interval_seconds": 0.05,
            "answer_seconds": 5,
            "limit_seconds": 0.6,
            "database_field": "database",
            **probe,
        },
    }
    return parse(values, source="test")


@asynccontextmanager
async def core_of(environment: Environment) -> AsyncIterator[Core]:
    """The tools of a step; nothing here asks the database."""
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with httpx.AsyncClient(trust_env=False) as http:
        yield Core(
            environment=environment, database=engine, http=http, clock=Clock(), random=random.Random(1)
        )
    await engine.dispose()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """One web process."""
    async with Web() as web:
        yield web


async def conclude(web: Web, answer: Any, status: int = 200, **probe: Any) -> tuple[Verdict, str]:
    """The verdict and the sentence of the probe for an answer that never changes."""
    web.answers = lambda _: (status, answer)
    async with core_of(environment(web.url, **probe)) as core:
        conclusion = await until_healthy(core, SHA)
    return conclusion.verdict, conclusion.sentence


async def test_good_answers_in_a_row_pass(web: Web) -> None:
    """The configured number of good answers in a row passes, without waiting for more."""
    verdict, sentence = await conclude(web, {"revision": SHA[:7], "database": "ok"}, limit_seconds=20)
    assert verdict is Verdict.PASS
    assert web.calls == 3
    assert "3 good answers in a row" in sentence


async def test_a_redirect_is_named_and_not_followed(web: Web) -> None:
    """The page that it leads to would answer for the host."""
    answer = (301, f"Location: {web.url}2", {"revision": SHA, "database": "ok"})
    web.answers = lambda _: answer
    async with core_of(environment(web.url)) as core:
        (health,) = await look_once(core, SHA)
    assert health.summary == (
        f"HTTP 301, it redirects to {web.url}2: set health_url to the address that answers itself"
    )
    assert web.calls == 1


async def test_an_answer_in_another_charset_is_read(web: Web) -> None:
    """A byte order mark, UTF-16, and Latin-1 that the header names."""
    text = json.dumps({"revision": SHA, "database": "ok", "place": "Köln"}, ensure_ascii=False)
    for body, header in (
        (text.encode("utf-8-sig"), ""),
        (text.encode("utf-16"), ""),
        (text.encode("latin-1"), "Content-Type: application/json; charset=iso-8859-1"),
    ):
        web.answers = lambda _, body=body, header=header: (200, header, body)  # type: ignore[misc]
        async with core_of(environment(web.url)) as core:
            (health,) = await look_once(core, SHA)
        assert health.good, health.summary


async def test_a_revision_of_digits_may_be_a_number(web: Web) -> None:
    """JSON makes a number of an abbreviated commit without a letter."""
    web.answers = lambda _: (200, {"revision": 1234567, "database": "OK"})
    async with core_of(environment(web.url)) as core:
        (health,) = await look_once(core, "1234567" + "a" * 33)
        (other,) = await look_once(core, "1234568" + "a" * 33)
    assert (health.good, health.revision, other.good) == (True, "1234567", False)


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (503, {"revision": SHA, "database": "ok"}, "HTTP 503"),
        (503, {"revision": SHA, "database": "down"}, "HTTP 503, database down"),
        (200, {"revision": SHA, "database": "down"}, "database down"),
        (200, {"revision": SHA, "database": 1}, "database 1"),
        (200, {"revision": SHA}, "no 'database' in its answer"),
        (200, {"revision": OTHER, "database": "ok"}, "revision 41aa07c instead of 4f2c9e1"),
        (200, {"revision": SHA[:6], "database": "ok"}, "instead of"),
        (200, {"revision": "", "database": "ok"}, "instead of"),
        (200, {"revision": None, "database": "ok"}, "instead of"),
        (200, {"revision": SHA + "0", "database": "ok"}, "instead of"),
        (200, {"database": "ok"}, "no 'revision' in its answer"),
        (200, [], "no 'revision' in its answer"),
        (200, "healthy", "not JSON"),
        (302, {"revision": SHA, "database": "ok"}, "HTTP 302"),
        (404, "nothing here", "HTTP 404"),
    ],
)
async def test_any_other_answer_fails_with_its_faults(web: Web, status: int, answer: Any, words: str) -> None:
    """The sentence has the last result of each host."""
    verdict, sentence = await conclude(web, answer, status)
    assert verdict is Verdict.FAIL
    assert "web-1: " in sentence
    assert words in sentence


async def test_a_host_that_does_not_answer_fails(web: Web) -> None:
    """A closed port and a server that never answers have different messages."""
    web.delay = 30
    gone = f"http://127.0.0.1:{CLOSED_PORT}/health"
    async with core_of(environment(web.url, gone, answer_seconds=0.5)) as core:
        began = monotonic()
        conclusion = await until_healthy(core, SHA)
    assert conclusion.verdict is Verdict.FAIL
    assert "web-1: no answer within 0.5 s" in conclusion.sentence
    assert "web-2: nothing listens" in conclusion.sentence
    assert monotonic() - began < 5


async def test_a_service_that_flaps_does_not_pass(web: Web) -> None:
    """One bad answer resets the count."""
    good, bad = (200, {"revision": SHA, "database": "ok"}), (503, {"revision": SHA, "database": "ok"})
    web.answers = lambda call: bad if call % 3 == 2 else good
    async with core_of(environment(web.url)) as core:
        conclusion = await until_healthy(core, SHA)
    assert conclusion.verdict is Verdict.FAIL
    assert web.calls > 6


async def test_a_service_that_is_slow_to_come_up_passes(web: Web) -> None:
    """Bad answers at first do not fail the probe before its limit."""
    web.answers = lambda call: (503, "") if call < 3 else (200, {"revision": SHA, "database": "ok"})
    async with core_of(environment(web.url, limit_seconds=10)) as core:
        assert (await until_healthy(core, SHA)).verdict is Verdict.PASS
    assert web.calls == 6


async def test_every_host_must_be_good(web: Web) -> None:
    """One good host is not enough."""
    async with Web() as other:
        other.answers = lambda _: (200, {"revision": OTHER, "database": "ok"})
        async with core_of(environment(web.url, other.url)) as core:
            conclusion = await until_healthy(core, SHA)
    assert conclusion.verdict is Verdict.FAIL
    assert re.search(r"web-1: healthy on 4f2c9e1 \(\d+ good answers in a row\)", conclusion.sentence)
    assert "web-2: revision 41aa07c" in conclusion.sentence


async def test_no_host_at_all_does_not_pass(web: Web) -> None:
    """Without any host the probe fails."""
    async with core_of(environment(web.url)) as core:
        assert (await until_healthy(core, SHA, hosts=())).verdict is Verdict.FAIL


async def test_fields_may_lie_deep(web: Web) -> None:
    """Dotted names are paths into the answer."""
    answer = {"build": {"git": {"sha": SHA}}, "deps": {"db": {"up": True}}}
    fields = {"revision_field": "build.git.sha", "database_field": "deps.db.up"}
    assert (await conclude(web, answer, **fields))[0] is Verdict.PASS
    answer["deps"]["db"]["up"] = False
    assert (await conclude(web, answer, **fields))[0] is Verdict.FAIL


@pytest.mark.parametrize(
    ("workers", "field", "words"),
    [
        ([{"id": 1, "sha": SHA}, {"id": 2, "sha": SHA}], "workers.sha", ""),
        ([{"id": 1, "sha": SHA}, {"id": 2, "sha": OTHER}], "workers.*.sha", "workers on 41aa07c"),
        ({"a": {"sha": SHA}, "b": {"sha": SHA}}, "workers.*.sha", ""),
        ([{"id": 1}], "workers.sha", "no list"),
        ([], "workers.sha", "no live worker"),
        ({"alive": 2, "sha": SHA}, "workers.sha", ""),
        ({"alive": 0, "sha": None}, "workers.sha", "no list"),
    ],
)
async def test_workers_may_be_reported_in_other_forms(web: Web, workers: Any, field: str, words: str) -> None:
    """A list of objects, an object of objects, or one revision for all workers is understood."""
    web.answers = lambda _: (200, {"revision": SHA, "database": "ok", "workers": workers})
    async with core_of(environment(web.url, worker_revisions_field=field)) as core:
        (seen,) = await look_once(core, SHA)
    assert seen.good is (not words)
    assert words in seen.summary


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([SHA, SHA[:10]], ""),
        ({"a": SHA}, ""),
        ([SHA, OTHER], "workers on 41aa07c"),
        ([], "no live worker"),
        (None, "no list"),
        ([None], "workers on None"),
    ],
)
async def test_every_live_worker_must_run_the_revision(web: Web, workers: Any, words: str) -> None:
    """A worker of the old revision, or no worker, is not healthy; during a deploy workers are not checked."""
    web.answers = lambda _: (200, {"revision": SHA, "database": "ok", "workers": workers})
    async with core_of(environment(web.url, worker_revisions_field="workers")) as core:
        (seen,) = await look_once(core, SHA)
        assert seen.good is (not words)
        assert words in seen.summary
        (without,) = await look_once(core, SHA, workers=False)
        assert without.good


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([SHA, OTHER], ""),
        ([OTHER], "workers on 41aa07c"),
        ([SHA, OTHER, "9" * 40], "workers on 9999999"),
        ([], "no live worker"),
    ],
)
async def test_a_list_may_still_have_the_workers_that_a_rollback_stopped(
    web: Web, workers: Any, words: str
) -> None:
    """Next to one of the wanted revision: their units are proven. A worker of a third revision is not healthy."""
    web.answers = lambda _: (200, {"revision": SHA, "database": "ok", "workers": workers})
    async with core_of(environment(web.url, worker_revisions_field="workers")) as core:
        (seen,) = await look_once(core, SHA, leaving=OTHER)
    assert seen.good is (not words)
    assert words in seen.summary


async def test_a_process_that_has_just_been_restarted_is_asked_again_soon(web: Web) -> None:
    """The first pauses are short until it answers, so that its start delays no rollback by a whole interval."""
    web.answers = lambda call: (200, {"revision": SHA, "database": "ok"}) if call >= 2 else (503, "starting")
    async with core_of(environment(web.url, consecutive=1, interval_seconds=30, limit_seconds=60)) as core:
        began = monotonic()
        assert (await until_healthy(core, SHA)).verdict is Verdict.PASS
    assert monotonic() - began < 10


async def test_each_check_is_reported(web: Web) -> None:
    """on_look gets the health after every check, with the count."""
    counts: list[int] = []

    async def on_look(results: Sequence[HostHealth]) -> None:
        counts.append(results[0].consecutive)

    async with core_of(environment(web.url)) as core:
        await until_healthy(core, SHA, on_look=on_look)
    assert counts == [1, 2, 3]


async def test_the_time_to_its_proof_stands_still_once_a_host_is_proven(web: Web) -> None:
    """It is looked at on for the sake of the others; one that becomes bad again is not proven any more."""
    seen: list[tuple[HostHealth, HostHealth]] = []

    async def on_look(results: Sequence[HostHealth]) -> None:
        seen.append((results[0], results[1]))

    good, bad = (200, {"revision": SHA, "database": "ok"}), (503, "starting")
    async with Web() as other:
        web.answers = lambda call: bad if call == 4 else good
        other.answers = lambda call: good if call >= 8 else bad
        async with core_of(environment(web.url, other.url, limit_seconds=60, interval_seconds=0.2)) as core:
            assert (await until_healthy(core, SHA, on_look=on_look)).verdict is Verdict.PASS
    assert {one.needed for both in seen for one in both} == {3}
    first = [one.seconds for one, _ in seen]
    assert first[2] == first[3], "proven at the third look"
    assert len({*first[3:7]}) == 4, "bad at the fifth look, so the proof is begun again"
    assert first[7] == first[-1], "proven for good at the eighth"
    assert seen[-1][1].seconds is not None
    assert first[-1] is not None
    assert seen[-1][1].seconds > first[-1]


async def test_a_dead_unit_or_an_old_process_is_not_healthy(web: Web, tmp_path: Path) -> None:
    """A good answer from the process that should have been replaced is noticed, but a pid alone is not a process: after
    a reboot, or much later, another one has it.
    """
    async with serve(tmp_path) as target:
        home = target.hosts["web-1"]
        for name in ("tsh-erp", "tsh-erp-workers"):
            unit(home, name, "/bin/sleep 1000")
        base = target.environment()
        host = base.hosts[0].model_copy(update={"health_url": web.url})
        probe = environment(web.url).probe
        place = base.model_copy(update={"hosts": (host,), "probe": probe})
        async with core_of(place) as core, open_hosts(place) as shells:
            await shells[0].run(Command("systemctl", "start", "tsh-erp"))
            (seen,) = await look_once(core, SHA, shells=shells)
            assert "unit tsh-erp-workers inactive" in seen.summary
            assert not seen.unit_failed
            (seen,) = await look_once(core, SHA, shells=shells, workers=False)
            assert seen.good
            await shells[0].run(Command("systemctl", "start", "tsh-erp-workers"))
            now = (await inspect(shells[0])).processes()
            replaced = {"web-1": now}
            for part, other in ((0, "another-boot"), (2, "7")):
                words = {name: process.split() for name, process in now.items()}
                before = {name: [*w[:part], other, *w[part + 1 :]] for name, w in words.items()}
                earlier = {"web-1": {name: " ".join(w) for name, w in before.items()}}
                (seen,) = await look_once(core, SHA, shells=shells, replaced=earlier)
                assert seen.good, seen.summary
            for name in ("tsh-erp", "tsh-erp-workers"):
                (seen,) = await look_once(core, SHA, shells=shells, replaced=replaced)
                assert f"unit {name} still runs the previous process" in seen.summary
                await shells[0].run(Command("systemctl", "restart", name))
            (seen,) = await look_once(core, SHA, shells=shells, replaced=replaced)
            assert seen.good, seen.summary


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (SHA, True),
        (SHA[:7], True),
        (SHA[:7].upper(), True),
        (SHA[:6], False),
        (OTHER, False),
        (7, False),
        (None, False),
    ],
)
def test_an_abbreviated_revision_is_the_same_one(answer: object, same: bool) -> None:
    """Seven digits are enough, six are not."""
    assert runs(answer, SHA) is same
