"""One connection to the receiver: whoever says nothing, says it too slowly or does not listen is let go.

The server that this builds on waits for ever for a request to be complete, and has places for so many connections only:
a handful of callers that send a letter now and then would close the door for all others.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

CONNECTIONS_MAX = 768
"""An ordinary process may have a thousand files open."""
_CROWDED = 0.75
"""From this part of all connections on none is kept after its answer."""
HEAD_SECONDS = 10.0
"""From the first byte of a request, or from the beginning of a connection, to the end of the headers."""
HEAD_BYTES_MAX = 32 * 1024
_ANSWERS_BYTES_MAX = 64 * 1024

_SENTENCES = {
    400: "this is not a request of HTTP/1.1",
    408: "the request did not come in time",
    431: f"the headers are larger than {HEAD_BYTES_MAX} bytes",
    501: "a body comes whole or in chunks, and not in any other coding",
    503: "there are too many connections: try again",
}


class Connection(H11Protocol):
    """The server's own protocol with an end to each wait."""

    conn: _Conversation

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Conversation(h11.SERVER, HEAD_BYTES_MAX)
        self._quiet_since = self.loop.time()
        self._speaking = False
        """A request has begun and is not complete."""
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # Narrower than asyncio's own declaration, as the server's is: a connection of TCP can be written to.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Else the system keeps megabytes of answers for a caller that does not take them.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ANSWERS_BYTES_MAX)
        # Without a word: a proxy may open connections ahead, and would take a sentence for its next call's answer.
        self._late = self.loop.call_later(HEAD_SECONDS, transport.close)
        if len(self.connections) > CONNECTIONS_MAX:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_flushing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_quiet():
            self._stop_waiting()
        elif not self._speaking:
            self._stop_waiting()
            self._speaking = True
            self._late = self.loop.call_later(HEAD_SECONDS, self._end, 408)

    def on_response_complete(self) -> None:
        self._quiet_since = self.loop.time()
        if len(self.connections) > CONNECTIONS_MAX * _CROWDED:
            # One answer each, or callers that always have a next request would never leave a place to another.
            self.transport.close()
        if self.transport.is_closing():
            self._flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._flush()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._stop_flushing()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """The server calls this whatever is wrong with the bytes; the conversation knows better what it is."""
        self._end(self.conn.fault)

    def _is_quiet(self) -> bool:
        """Whether no request is in hand."""
        return self.cycle is None or self.cycle.response_complete

    def _stop_waiting(self) -> None:
        self._speaking = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _flush(self) -> None:
        """Give the caller time to take its answers: a connection is not closed before all of them are on their way."""
        if self._unread is None:
            self._unread = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_flushing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _make_room(self) -> None:
        """Let go who has been quiet longest; where all have a request in hand there is no room for another."""
        quiet = [
            one
            for one in self.connections
            if isinstance(one, Connection)
            and one is not self
            and one._is_quiet()
            and not one.transport.is_closing()
        ]
        if quiet:
            min(quiet, key=lambda one: one._quiet_since).transport.abort()
        else:
            self._end(503)

    def _end(self, status: int) -> None:
        """Close with a sentence, where the conversation is at a point at which one may be said."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            told = json.dumps({"status": "refused", "reason": _SENTENCES[status]}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(told)).encode()),
                (b"connection", b"close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=told), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._flush()


class _Conversation(h11.Connection):
    """Remembers what was wrong, and sends the head of an answer together with its body: one packet, not two."""

    fault = 400
    _head: Sequence[bytes] = ()

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint in _SENTENCES:
                self.fault = error.error_status_hint
            raise
        # The library's own limit is for headers that are not complete yet.
        if isinstance(event, h11.Request) and _size(event) > HEAD_BYTES_MAX:
            self.fault = 431
            raise h11.RemoteProtocolError("the headers are too large")
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        output = super().send_with_data_passthrough(event)
        if output is None:
            return None
        if isinstance(event, h11.Response):
            self._head = output
            return []
        head, self._head = self._head, ()
        return [*head, *output]


def _size(request: h11.Request) -> int:
    return len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
