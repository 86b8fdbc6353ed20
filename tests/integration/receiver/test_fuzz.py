"""Whatever is thrown at the receiver: never an error of the server, and nothing queued that no worker could read."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities import registry
from handlers.queue.event import ENTITY_TYPES, EntityType
from handlers.receiver.intake import KINDS
from tests.integration.receiver.calls import ITEM, body, receiver, rows

FUZZ = settings(
    max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)

SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "0", "1e5", "2646610000000113826", "\x00", "\ud800", "NaN", "2025-11-04T15:20:11+0300"]
    ),
    st.sampled_from([10**400, -(10**18), 1.5e300, "9" * 200]),
)
TYPES = ["application/json", "application/x-www-form-urlencoded; charset=ISO-8859-1", "text/plain", ""]
KEY = st.one_of(
    st.sampled_from(
        sorted({key for one in registry.HANDLERS.values() for key in (*one.id_keys, *one.wrappers)})
    ),
    st.sampled_from(
        ["payload", "data", "JSONString", "code", "message", "last_modified_time", "status", "rate"]
    ),
    st.text(max_size=8),
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=4), max_leaves=12
)


@st.composite
def near(draw: st.DrawFn) -> tuple[str, Any]:
    """A body that is nearly right, for a kind that nearly fits."""
    often = st.integers(0, 4)
    handler = registry.handler(draw(st.sampled_from(list(EntityType))))
    if draw(st.booleans()):
        number = st.integers(0, 10**18)
        return handler.entity.value, {
            handler.wrappers[0]: {handler.id_keys[0]: draw(number), draw(KEY): draw(VALUE)}
        }
    record: dict[str, Any] = draw(st.dictionaries(KEY, VALUE, max_size=6))
    if draw(often):
        record[handler.id_keys[0]] = draw(st.one_of(SCALAR, st.just("17"), st.integers(0, 10**18)))
    wrapped: Any = record if draw(st.booleans()) else {draw(st.sampled_from(handler.wrappers)): record}
    if draw(often) == 0:
        wrapped = {"payload": json.dumps(wrapped)}
    kind = draw(st.sampled_from(sorted(KINDS))) if draw(often) == 0 else handler.entity.value
    return kind, wrapped


@st.composite
def mangled(draw: st.DrawFn, raw: bytes) -> bytes:
    """*raw* with a few bytes changed, cut or doubled."""
    found = bytearray(raw)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        found[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(found)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, bytes, dict[str, str]]:
    """The address, the body and the headers of a call."""
    kind, value = draw(near())
    as_json = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    as_form = urlencode({draw(KEY): as_json.decode("utf-8", "replace")}, errors="replace").encode()
    flat = urlencode(
        [(draw(KEY), str(draw(SCALAR))) for _ in range(draw(st.integers(0, 4)))], errors="replace"
    ).encode()
    others = st.one_of(st.just(as_form), st.just(flat), st.binary(max_size=60), mangled(as_json))
    raw = as_json if draw(st.booleans()) else draw(others)
    other_paths = st.text(max_size=10).map(lambda text: quote(text, errors="replace"))
    path = draw(other_paths) if draw(st.integers(0, 6)) == 0 else kind
    query = draw(
        st.one_of(st.just(""), st.sampled_from(["?event=deleted", "?event=x", "?event=%ff", "?&=&%"]))
    )
    visible = st.text(
        st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=30
    )
    headers = {
        "Content-Type": draw(visible) if draw(st.integers(0, 6)) == 0 else draw(st.sampled_from(TYPES)),
        "X-Fuzz": draw(visible),
        "User-Agent": draw(visible),
        "X-Zoho-Webhook-Signature": draw(visible),
    }
    return f"/webhooks/{path}{query}", raw, headers


def throw(port: int, seen: set[int]) -> Callable[[], None]:
    """A sync function that throws all that Hypothesis finds at the receiver on *port*."""

    @FUZZ
    @given(calls())
    def thrown(call: tuple[str, bytes, dict[str, str]]) -> None:
        path, raw, headers = call
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("POST", path, raw, headers)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        seen.add(answer.status)
        assert answer.status < 500, told
        assert b"Traceback" not in told

    return thrown


async def test_no_call_is_an_error_of_the_server(engine: AsyncEngine) -> None:
    """No 5xx; and all that was queued unwraps again into one record that has the event's key."""
    seen: set[int] = set()
    async with receiver(engine, per_minute_max=0) as client:
        port = client.base_url.port
        assert port is not None
        await asyncio.to_thread(throw(port, seen))
    assert {200, 400, 404, 415, 422} <= seen
    queued = await rows(engine)
    assert len(queued) >= 10
    for row in queued:
        entity = ENTITY_TYPES[row["kind"]]
        (record,) = registry.unwrap(entity, json.dumps(row["validated_payload"]))
        assert registry.source_key(entity, record.data) == row["source_entity_id"]
        assert row["raw_payload"] == row["validated_payload"]


async def test_a_stranger_gets_nothing_in(engine: AsyncEngine) -> None:
    """With a secret, no call without its signature is anything but refused, or an empty check call."""
    seen: set[int] = set()
    async with receiver(engine, secret="a secret of the test", per_minute_max=0) as client:
        port = client.base_url.port
        assert port is not None
        await asyncio.to_thread(throw(port, seen))
    assert 401 in seen
    assert await rows(engine) == []


async def test_what_is_no_http_is_no_error_of_the_server(engine: AsyncEngine) -> None:
    """Bytes on the line that are no request, or break off, end the connection and nothing else."""

    def shout(port: int) -> None:
        @settings(FUZZ, max_examples=150)
        @given(mangled(b"POST /webhooks/items HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{}garba"))
        def shouted(raw: bytes) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
                line.sendall(raw)
                line.shutdown(socket.SHUT_WR)
                try:
                    told = line.recv(65536)
                except ConnectionError:
                    return
            assert not told.startswith(b"HTTP/1.1 5"), told

        shouted()

    async with receiver(engine, per_minute_max=0) as client:
        port = client.base_url.port
        assert port is not None
        await asyncio.to_thread(shout, port)
        answer = await client.post("/webhooks/items", content=body(ITEM))
        assert answer.status_code == 200
