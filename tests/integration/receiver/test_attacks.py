"""What a hostile or broken client sends, byte by byte: it gets a sentence, no server error, and others are served."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.receiver import connection, intake, signature
from tests.integration.receiver.calls import ITEM, SECRET, USER, body, receiver, rows, signed

HEAD = b"POST /webhooks/items HTTP/1.1\r\nHost: x\r\n"
DEEP = 100_000


@asynccontextmanager
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a test says what it likes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def heard(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes."""
    told = b""
    with suppress(ConnectionError):
        while more := await asyncio.wait_for(reader.read(65536), 20):
            told += more
    return told


async def shout(port: int, raw: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Send *raw*, and no more; every answer until the connection is closed."""
    async with line(port) as (reader, writer):
        writer.write(raw)
        with suppress(ConnectionError):
            await writer.drain()
        return answers(await heard(reader))


async def trickle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes
) -> list[tuple[int, dict[str, Any]]]:
    """Say *said*, and if that is anything then a letter now and then, until the other side closes."""
    writer.write(said)
    listening = asyncio.create_task(heard(reader))
    async with asyncio.timeout(10):
        while not listening.done():
            if said and not writer.is_closing():
                writer.write(b"x")
            await asyncio.wait({listening}, timeout=0.1)
    return answers(listening.result())


def answers(told: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Status and body of each response in *told*."""
    found = []
    while told:
        head, _, told = told.partition(b"\r\n\r\n")
        length = next(
            int(each.split(b":")[1])
            for each in head.lower().split(b"\r\n")
            if each.startswith(b"content-length")
        )
        found.append((int(head.split()[1]), json.loads(told[:length])))
        told = told[length:]
    return found


ASK = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def deaf(client: httpx.AsyncClient) -> AsyncIterator[socket.socket]:
    """A connection that takes next to nothing unless it is read from."""
    with socket.socket() as line_:
        line_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line_.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line_, ("127.0.0.1", port_of(client)))
        yield line_


def port_of(client: httpx.AsyncClient) -> int:
    port = client.base_url.port
    assert port is not None
    return port


def call(raw: bytes, *more: bytes) -> bytes:
    """A whole request."""
    return (
        HEAD + b"".join(each + b"\r\n" for each in (*more, b"Content-Length: %d" % len(raw))) + b"\r\n" + raw
    )


def item(number: object) -> bytes:
    return body(ITEM | {"item_id": str(number)})


async def served(client: httpx.AsyncClient, number: object = "after") -> None:
    """Whatever happened, the next caller is served, and soon."""
    async with asyncio.timeout(5):
        answer = await client.post("/webhooks/items", content=item(number))
    assert answer.status_code == 200, answer.text


class TestSlowness:
    async def test_a_request_that_does_not_come_is_given_up(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither silence nor a letter now and then holds a connection: the time is for all of the headers."""
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
        async with receiver(engine) as client:
            async with line(port_of(client)) as (reader, writer):
                ((status, told),) = await trickle(reader, writer, HEAD + b"X-A: ")
            assert (status, told["reason"]) == (408, "the request did not arrive in time")
            async with line(port_of(client)) as (reader, writer):
                # A proxy that opened it ahead would take a sentence for the answer of its next call.
                assert await trickle(reader, writer, b"") == []

    async def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that got a 404 and keeps sending slowly is disconnected as well."""
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
        async with receiver(engine) as client, line(port_of(client)) as (reader, writer):
            said = b"POST /webhooks/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n"
            assert [status for status, _ in await trickle(reader, writer, said)] == [404]

    async def test_slow_bodies_leave_the_door_open(self, engine: AsyncEngine) -> None:
        """With every place held by a body that does not end, the slowest loses its place to the next caller."""
        async with receiver(engine, calls_max=4, per_minute_max=0) as client:
            slow = []
            for _ in range(12):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
                writer.write(HEAD + b"Content-Length: 9000\r\n\r\n{")
                slow.append((reader, writer))
            for number in range(5):
                await served(client, number)
            told = [answers(await heard(reader)) for reader, _ in slow[:8]]
            for _, writer in slow:
                writer.close()
        assert [[status for status, _ in each] for each in told] == [[503]] * 8
        assert len(await rows(engine)) == 5

    async def test_bodies_together_have_a_limit(self, engine: AsyncEngine) -> None:
        """The memory of all bodies that are not complete is bounded, and not only that of one."""
        from handlers.receiver.body_reader import BodyReader
        from handlers.receiver.rejected import Rejected

        bodies = BodyReader(bytes_max=1000, seconds=10, open_max=100, total_bytes_max=2500)

        async def read(ready: asyncio.Event) -> bytes:
            said = iter([{"type": "http.request", "body": b"x" * 900, "more_body": True}])

            async def receive() -> dict[str, Any]:
                for each in said:
                    return each
                await ready.wait()
                return {"type": "http.request", "body": b"y"}

            return await bodies.read([], receive)

        ready = asyncio.Event()
        reading = [asyncio.create_task(read(ready)) for _ in range(5)]
        await asyncio.wait(reading, timeout=0.5)
        ready.set()
        found = await asyncio.gather(*reading, return_exceptions=True)
        assert [isinstance(each, Rejected) for each in found] == [True, True, True, False, False]

    async def test_connections_that_say_nothing_make_room(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection that is idle longest is closed for a new one; a request in progress stays."""
        monkeypatch.setattr(connection, "CONNECTIONS_MAX", 20)
        async with receiver(engine) as client:
            idle = [await asyncio.open_connection("127.0.0.1", port_of(client)) for _ in range(60)]
            await served(client)
            gone = [asyncio.create_task(heard(reader)) for reader, _ in idle]
            await asyncio.wait(gone[:40], timeout=4)
            still = sum(not each.done() for each in gone)
            assert 10 <= still <= 20
            for _, writer in idle:
                writer.close()
            await asyncio.gather(*gone)

    async def test_who_always_has_a_next_request_makes_room_too(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where it is crowded a connection has one answer, so that requests without end on all of them end."""
        monkeypatch.setattr(connection, "CONNECTIONS_MAX", 8)
        async with receiver(engine, per_minute_max=0) as client:
            greedy = [asyncio.create_task(shout(port_of(client), call(b"x" * 2000) * 1500)) for _ in range(8)]
            await asyncio.sleep(0.1)
            await served(client)
            told = await asyncio.gather(*greedy)
        assert min(len(each) for each in told) < 10

    async def test_with_every_connection_in_use_another_is_told_so(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No request in progress is dropped for a new one."""
        monkeypatch.setattr(connection, "CONNECTIONS_MAX", 3)
        begun = asyncio.Semaphore(0)
        receive = connection.Connection.data_received

        def received(self: connection.Connection, data: bytes) -> None:
            receive(self, data)
            begun.release()

        monkeypatch.setattr(connection.Connection, "data_received", received)
        async with receiver(engine) as client:
            async with engine.begin() as tx:
                await tx.execute(text("LOCK TABLE tds_inbox_events IN ACCESS EXCLUSIVE MODE"))
                busy = [
                    asyncio.create_task(shout(port_of(client), call(item(n), b"Connection: close")))
                    for n in range(3)
                ]
                # All three are in progress. The server gives up writing them after two seconds.
                for _ in busy:
                    await asyncio.wait_for(begun.acquire(), 10)
                ((status, told),) = await shout(port_of(client), call(item(9)))
                assert (status, told["status"]) == (503, "refused")
            assert [status for each in await asyncio.gather(*busy) for status, _ in each] == [200] * 3

    async def test_calls_that_cannot_be_written_in_time_are_told_to_come_back(
        self, engine: AsyncEngine
    ) -> None:
        """Only so many wait for the database; what was refused is not kept, and what waited is."""
        async with receiver(engine, calls_max=3) as client:
            async with engine.begin() as tx:
                await tx.execute(text("LOCK TABLE tds_inbox_events IN ACCESS EXCLUSIVE MODE"))
                calls = [
                    asyncio.create_task(client.post("/webhooks/items", content=item(n))) for n in range(20)
                ]
                await asyncio.wait(calls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            told = await asyncio.gather(*calls)
            refused = [each for each in told if each.status_code == 503]
            assert len(refused) >= 10
            assert all(int(each.headers["retry-after"]) > 0 for each in refused)
            assert {each.status_code for each in told} == {200, 503}
        assert len(await rows(engine)) == 20 - len(refused)

    async def test_who_does_not_read_the_answers_is_let_go(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Endless requests whose responses are not read end the connection, even while more bytes arrive."""
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
        async with receiver(engine, per_minute_max=0) as client, deaf(client) as line_:
            with pytest.raises(ConnectionError):  # noqa: PT012
                async with asyncio.timeout(20):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(line_, ASK * 100)
            await served(client)

    async def test_a_last_answer_that_nobody_reads_is_thrown_away(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that we close does not wait forever until its responses are read."""
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.4)
        monkeypatch.setattr(connection, "_SEND_BUFFER_BYTES", 4096)
        async with receiver(engine, per_minute_max=0) as client, deaf(client) as line_:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(line_, ASK * 200 + b"garbage\r\n\r\n")
            await asyncio.sleep(1.5)
            told = b""
            with suppress(ConnectionError):
                async with asyncio.timeout(10):
                    while more := await loop.sock_recv(line_, 65536):
                        told += more
            assert told.count(b"HTTP/1.1 404") < 150
            assert b"HTTP/1.1 400" not in told


BROKEN: list[tuple[str, bytes, int]] = [
    ("no request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("no version", b"POST /webhooks/items\r\n\r\n", 400),
    ("no host", b"POST /webhooks/items HTTP/1.1\r\n\r\n", 400),
    ("huge header", HEAD + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    ("many headers", HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(9000)) + b"\r\n", 431),
    ("huge address", b"POST /webhooks/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ("letters for a length", HEAD + b"Content-Length: abc\r\n\r\n{}", 400),
    ("negative length", HEAD + b"Content-Length: -5\r\n\r\n{}", 400),
    ("two lengths", HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", 400),
    ("a length beyond all", HEAD + b"Content-Length: " + b"9" * 15 + b"\r\n\r\n{}", 413),
    ("length and chunks", HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("unknown coding", HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}", 501),
    ("broken chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", 400),
    (
        "endless chunks",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 140,
        413,
    ),
    ("a large body, announced", HEAD + b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n", 413),
]


class TestBytes:
    async def test_what_is_no_proper_request_is_refused(self, engine: AsyncEngine) -> None:
        """One answer with a sentence, and the connection is closed: what follows on it cannot be trusted."""
        async with receiver(engine) as client:
            for name, raw, status in BROKEN:
                told = await shout(port_of(client), raw)
                assert [(found, one["status"]) for found, one in told] == [(status, "refused")], (name, told)
                assert told[0][1]["reason"]
            await served(client)
        assert len(await rows(engine)) == 1

    async def test_requests_that_come_in_one_piece_are_answered_in_order(self, engine: AsyncEngine) -> None:
        """Pipelining: each its own answer, each written once."""
        raw = b"".join(call(item(n)) for n in range(30)) + call(item(99), b"Connection: close")
        async with receiver(engine) as client:
            told = await shout(port_of(client), raw)
        assert [status for status, _ in told] == [200] * 31
        assert [str(row["id"]) for row in await rows(engine)] == [one["events"][0] for _, one in told]

    async def test_a_body_shorter_than_announced_is_no_record(self, engine: AsyncEngine) -> None:
        """Half a body that happens to be JSON is not taken for the whole."""
        raw = item(1)
        async with receiver(engine, body_seconds=0.3) as client:
            ((status, _),) = await shout(
                port_of(client), HEAD + b"Content-Length: %d\r\n\r\n" % (len(raw) + 1) + raw
            )
            assert status == 408
            async with line(port_of(client)) as (_, writer):
                writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (len(raw) + 1) + raw)
                await writer.drain()
            await served(client)
        assert [row["source_entity_id"] for row in await rows(engine)] == ["after"]

    async def test_a_body_longer_than_announced_is_cut(self, engine: AsyncEngine) -> None:
        """What is beyond the length is another request, and a bad one."""
        async with receiver(engine) as client:
            told = await shout(port_of(client), call(item(1)) + b'{"more": 1}\r\n\r\n')
        assert [status for status, _ in told] == [200, 400]
        assert len(await rows(engine)) == 1

    async def test_chunks_are_one_body(self, engine: AsyncEngine) -> None:
        """Letter by letter it is still the same record, and its signature holds."""
        raw = item(1)
        headers = b"".join(f"{name}: {value}\r\n".encode() for name, value in signed(raw).items())
        chunks = b"".join(b"1\r\n%c\r\n" % each for each in raw) + b"0\r\n\r\n"
        async with receiver(engine, secret=SECRET) as client:
            told = await shout(
                port_of(client),
                HEAD + headers + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
            )
        assert [status for status, _ in told] == [200]

    async def test_a_caller_that_waits_for_leave_gets_it(self, engine: AsyncEngine) -> None:
        """Expect: 100-continue is answered before the body is sent."""
        raw = item(1)
        async with receiver(engine) as client, line(port_of(client)) as (reader, writer):
            writer.write(
                HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(raw)
            )
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 100")
            writer.write(raw)
            assert [status for status, _ in answers(await heard(reader))] == [200]

    async def test_another_method_is_refused(self, engine: AsyncEngine) -> None:
        """Only POST brings a record; the answer names it."""
        async with receiver(engine) as client:
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "FOO"):
                answer = await client.request(method, "/webhooks/items", content=item(1))
                assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), method
        assert await rows(engine) == []


VICIOUS: list[tuple[str, bytes, int]] = [
    ("deep lists", b"[" * DEEP, 422),
    ("deep objects", b'{"item":' * DEEP, 422),
    ("deep and closed", b'{"item": {"item_id": "1", "a": ' + b"[" * DEEP + b"]" * DEEP + b"}}", 422),
    ("deep in a text", json.dumps({"payload": "[" * DEEP}).encode(), 422),
    ("a long whole number", b'{"item": {"item_id": "1", "rate": ' + b"9" * 500_000 + b"}}", 400),
    ("a long fraction", b'{"item": {"item_id": "1", "rate": 0.' + b"9" * 500_000 + b"}}", 422),
    ("a large exponent", b'{"item": {"item_id": "1", "rate": 1e999999999}}', 422),
    ("a number as id", b'{"item": {"item_id": 1e3}}', 422),
    ("half a pair", b'{"item": {"item_id": "1", "name": "\\ud800"}}', 422),
    ("not UTF-8", b'{"item": {"item_id": "1", "name": "\xc3("}}', 400),
    ("UTF-16", '{"item": {"item_id": "1"}}'.encode("utf-16"), 400),
    ("compressed", gzip.compress(body(ITEM)), 400),
    ("many fields", b"&".join(b"a%d=1" % n for n in range(90_000)), 400),
    ("nothing but separators", b"&" * 1_000_000, 400),
    ("many records", json.dumps({"items": [{"item_id": n} for n in range(30_000)]}).encode(), 413),
    ("a long id", json.dumps({"item": {"item_id": "9" * 101}}).encode(), 422),
    ("a null", b"null", 422),
    ("a text", b'"' + b"a" * 500_000 + b'"', 422),
]


class TestBodies:
    async def test_a_vicious_body_is_refused(self, engine: AsyncEngine) -> None:
        """In one sentence of a few words, in no time, and nothing is kept."""
        async with receiver(engine) as client:
            for name, raw, status in VICIOUS:
                async with asyncio.timeout(5):
                    answer = await client.post("/webhooks/items", content=raw)
                assert answer.status_code == status, (name, answer.text)
                assert answer.json()["status"] == "refused"
                assert len(answer.text) < 1000
        assert await rows(engine) == []

    async def test_fields_of_the_address_have_a_limit(self, engine: AsyncEngine) -> None:
        """They are part of the signature, and so are read before it is known who calls."""
        query = "&".join("a" * (signature.PAIRS_MAX + 2)).replace("a", "a=1")
        async with receiver(engine, secret=SECRET) as client:
            answer = await client.post(f"/webhooks/items?{query}", content=item(1), headers=signed(item(1)))
        assert answer.status_code == 400

    async def test_a_list_of_the_limit_is_taken(self, engine: AsyncEngine) -> None:
        """The limit itself is allowed, and written in the time in which the source waits."""
        raw = json.dumps({"items": [ITEM | {"item_id": n} for n in range(intake.RECORDS_MAX)]}).encode()
        async with receiver(engine) as client:
            answer = await client.post("/webhooks/items", content=raw)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["events"]) == intake.RECORDS_MAX

    async def test_a_signature_is_one_and_whole(self, engine: AsyncEngine) -> None:
        """Too short, too long, not of hexadecimal digits, two of them: 401, also where one of the two is right."""
        raw = item(1)
        (right,) = (value.encode() for value in signed(raw).values())
        bad: list[list[bytes]] = [
            [],
            [b""],
            [right[:-1]],
            [right + b"0"],
            [b"0" * 20_000],
            ["é".encode() * 32],
            [right, b"0" * 64],
            [right, right],
            [right + b", " + right],
            [right[:32] + b" " + right[32:]],
        ]
        async with receiver(engine, secret=SECRET) as client:
            for each in bad:
                lines = [b"X-Zoho-Webhook-Signature: " + value for value in each]
                told = await shout(port_of(client), call(raw, b"Connection: close", *lines))
                assert [status for status, _ in told] == [401], each
        assert await rows(engine) == []


class TestTogether:
    async def test_one_webhook_fifty_times_at_once_is_one_event(self, engine: AsyncEngine) -> None:
        """Also when all fifty are in one transaction."""
        async with receiver(engine) as client:
            told = await asyncio.gather(*(client.post("/webhooks/items", content=item(1)) for _ in range(50)))
        assert sorted(each.json()["status"] for each in told) == ["duplicate"] * 49 + ["queued"]
        assert len(await rows(engine)) == 1

    async def test_versions_of_one_record_at_once_are_all_kept(self, engine: AsyncEngine) -> None:
        """Each once, each at a time of its own, so that their order is known."""
        async with receiver(engine) as client:
            told = await asyncio.gather(
                *(
                    client.post("/webhooks/users", content=body(USER | {"name": f"n{n}"}, "user"))
                    for n in range(40)
                )
            )
        assert {each.json()["status"] for each in told} == {"queued"}
        found = await rows(engine)
        assert {row["validated_payload"]["user"]["name"] for row in found} == {f"n{n}" for n in range(40)}
        assert len({row["created_at"] for row in found}) == 40

    async def test_a_connection_that_died_unseen_costs_no_call(self, engine: AsyncEngine) -> None:
        """The writer's connection is kept; where the server has ended it since, the call is written on another."""
        async with receiver(engine) as client:
            await served(client, 1)
            async with engine.begin() as tx:
                await tx.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            await served(client, 2)
        assert len(await rows(engine)) == 2

    async def test_many_bad_calls_among_good_ones(self, engine: AsyncEngine) -> None:
        """Whatever share of a group only the database refuses, every other call is written."""
        async with engine.begin() as tx:
            await tx.execute(
                text("ALTER TABLE tds_sync_queue ADD CONSTRAINT odd CHECK (source_entity_id !~ '[02468]$')")
            )
        async with receiver(engine) as client:
            told = await asyncio.gather(*(client.post("/webhooks/items", content=item(n)) for n in range(40)))
        assert [each.status_code for each in told] == [422, 200] * 20
        assert len(await rows(engine)) == 20
