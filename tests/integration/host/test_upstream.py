"""Whether the upstream answers: anything but an expected status is a failed answer, and says why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from handlers.core import open_core
from handlers.errors import ConfigError
from handlers.host import upstream
from handlers.host.upstream import UpstreamAnswer, UpstreamState
from handlers.phases import upstream_pause
from tests.certificates import Authority
from tests.integration.host.test_health_faults import closes, good, resets, serving, speaks_ssh
from tests.integration.host.upstreams import upstream_server
from tests.unit.environment.files import environment


async def asked(url: str, **keys: Any) -> UpstreamAnswer:
    """One answer of the upstream at *url*."""
    async with open_core(environment(upstream={"url": url, "answer_seconds": 2, **keys})) as core:
        answer = await upstream.ask(core)
    assert answer is not None
    return answer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 404, 401, 302])
async def test_a_status_that_is_not_expected_is_a_failed_answer(status: int) -> None:
    """Throttled, broken, moved or refused: what the ERP asks of it would fail as well."""
    async with upstream_server(status) as server:
        server.headers = "Location: /login\r\n" if status == 302 else ""
        answer = await asked(server.url)
        assert answer == UpstreamAnswer(
            up=False, sentence=f"127.0.0.1:{server.port} answers {status} instead of 200"
        )


async def test_each_declared_status_is_a_good_answer() -> None:
    """An address that asks for a login proves with 401 that the API is there."""
    async with upstream_server(200, 401, 403) as server:
        answers = [await asked(server.url, status=[200, 401]) for _ in range(3)]
    assert [answer.up for answer in answers] == [True, True, False]
    assert answers[1].sentence == f"127.0.0.1:{server.port} answers 401"
    assert answers[2].sentence.endswith("answers 403 instead of 200 or 401")


async def test_an_upstream_that_stays_silent_is_given_up_in_time() -> None:
    """It accepts the connection and never answers: the look goes on after answer_seconds."""
    async with upstream_server() as server:
        server.silent = True
        async with asyncio.timeout(5):
            answer = await asked(server.url, answer_seconds=0.2)
    assert answer == UpstreamAnswer(
        up=False, sentence=f"127.0.0.1:{server.port} does not answer: no answer within 0.2 s"
    )


async def test_an_answer_that_trickles_is_given_up_in_time() -> None:
    """A byte now and then keeps no request open for longer than answer_seconds."""

    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(trickles) as port, asyncio.timeout(5):
        answer = await asked(f"http://127.0.0.1:{port}/", answer_seconds=0.3)
    assert "no answer within 0.3 s" in answer.sentence


async def test_a_body_of_any_size_is_not_read() -> None:
    """Only that it answers counts: the answer may have no end."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as port:
        assert (await asked(f"http://127.0.0.1:{port}/")).up


@pytest.mark.parametrize(
    ("handler", "reason"),
    [(closes, "was closed before"), (resets, "was reset before"), (speaks_ssh, "its answer is not HTTP")],
)
async def test_a_broken_connection_is_a_failed_answer(handler: Any, reason: str) -> None:
    """Whatever breaks on the way has its own reason."""
    async with serving(handler) as port:
        answer = await asked(f"http://127.0.0.1:{port}/")
    assert not answer.up
    assert reason in answer.sentence


async def test_nobody_at_the_address_is_a_failed_answer() -> None:
    """A refused connection, and a name that does not resolve; the sentence names the upstream and no health address."""
    nobody = await asked("http://127.0.0.1:1/")
    assert nobody.sentence == "127.0.0.1:1 does not answer: nothing listens at upstream.url"
    unknown = await asked("https://api.nowhere.invalid/v3?authtoken=s3ntinel")
    assert not unknown.up
    assert unknown.sentence.startswith("api.nowhere.invalid does not answer: ")
    assert "no such host name" in unknown.sentence or "cannot be looked up" in unknown.sentence


async def test_a_wrong_certificate_is_a_failed_answer(tmp_path: Path) -> None:
    """Somebody between us and the upstream, or an expired certificate: both say so, neither is believed."""
    authority = Authority(tmp_path, "Our CA")
    async with serving(good, authority.issue("api", ["localhost"])) as port:
        untrusted = await asked(f"https://localhost:{port}/")
        plain = await asked(f"http://localhost:{port}/")
    assert not untrusted.up
    assert "its certificate is not trusted: issued by CN=Our CA" in untrusted.sentence
    assert "it answers with TLS: upstream.url must begin with https://" in plain.sentence
    async with serving(good, authority.issue("old", ["localhost"], days=-1)) as port:
        assert "its certificate" in (await asked(f"https://localhost:{port}/")).sentence


async def test_no_upstream_is_asked_where_none_is_declared() -> None:
    """Without the table there is no answer, no check and no pause."""
    async with open_core(environment()) as core:
        assert await upstream.ask(core) is None
        assert await upstream_pause.check(core) is None
        assert await upstream_pause.away(core) == ""


async def test_one_failed_answer_is_no_outage() -> None:
    """It is asked again at once; only as many failures in a row as declared mean that it is away."""
    async with upstream_server(503, 200, 503) as server:
        settings = environment(upstream={"url": server.url, "interval_seconds": 0.05, "failures": 2})
        async with open_core(settings) as core:
            assert await upstream_pause.away(core) == ""
            assert server.asked == 2
            why = await upstream_pause.away(core)
            check = await upstream_pause.check(core)
    assert why == f"the upstream is away: 127.0.0.1:{server.port} answers 503 instead of 200"
    assert check is not None
    assert (check.name, check.good, check.warns) == ("upstream", True, True)
    assert "the drain pauses" in check.sentence
    assert "s3ntinel" not in why + check.sentence


def test_an_outage_begins_after_failures_in_a_row_and_ends_with_one_answer() -> None:
    """A probe that flaps stays up; the state survives its way through the ledger."""
    good_answer, bad_answer = UpstreamAnswer(up=True, sentence="y"), UpstreamAnswer(up=False, sentence="n")
    state, ups = UpstreamState(), []
    for answer in (bad_answer, good_answer, bad_answer, bad_answer, bad_answer, bad_answer, good_answer):
        state = state.after(answer, failures=3)
        state = UpstreamState.from_json({"up": state.up, "failed": state.failed, "sentence": state.sentence})
        ups.append(state.up)
    assert ups == [True, True, True, True, False, False, True]
    assert UpstreamState.from_json({}).up


@pytest.mark.parametrize("status", [429, 500, 503, 199, [200, 502], []])
def test_a_status_of_an_outage_cannot_be_expected(status: Any) -> None:
    """429 and 5xx always mean that it is away."""
    with pytest.raises(ConfigError, match=r"upstream\.status"):
        environment(upstream={"url": "https://api.example.com", "status": status})
