"""One connection to the receiver, with timeouts against slow clients.

Uvicorn has no timeout for an incomplete request and a limited number of connections: a few slow clients would exhaust
the connection slots.
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

from handlers.receiver.refusal_log import RefusalLog

CONNECTIONS_MAX = 768
"""Below the usual limit of 1024 open files."""
_KEEP_ALIVE_SHARE_MAX = 0.75
"""Above this share of the connections, each is closed after its response: no keep-alive."""
HEAD_SECONDS = 10.0
"""Timeout of the headers, from the first byte of a request or the start of a connection."""
HEAD_BYTES_MAX = 32 * 1024
_SEND_BUFFER_BYTES = 64 * 1024

_SENTENCES = {
    400: "not a valid HTTP/1.1 request",
    408: "the request did not arrive in time",
    431: f"the headers are larger than {HEAD_BYTES_MAX} bytes",
    501: "the only supported Transfer-Encoding is chunked",
    503: "too many connections; try again",
}


class Connection(H11Protocol):
    """Uvicorn's protocol with a timeout for each wait."""

    conn: _HttpState

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _HttpState(h11.SERVER, HEAD_BYTES_MAX)
        self._idle_since = self.loop.time()
        self._receiving = False
        """A request has started and is not complete."""
        self._read_timeout: asyncio.TimerHandle | None = None
        self._write_timeout: asyncio.TimerHandle | None = None

    # A narrower type than asyncio's, as in uvicorn: a TCP transport can be written to.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Otherwise the kernel buffers megabytes of responses for a client that does not read.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # Closed without a response: a proxy may open connections ahead, and would take it for the next call's response.
        self._read_timeout = self.loop.call_later(HEAD_SECONDS, transport.close)
        if len(self.connections) > CONNECTIONS_MAX:
            self._free_slot()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_read_timeout()
        self._cancel_write_timeout()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_idle():
            self._cancel_read_timeout()
        elif not self._receiving:
            self._cancel_read_timeout()
            self._receiving = True
            self._read_timeout = self.loop.call_later(HEAD_SECONDS, self._close, 408)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        if len(self.connections) > CONNECTIONS_MAX * _KEEP_ALIVE_SHARE_MAX:
            # One response each: otherwise busy keep-alive clients would never free a slot.
            self.transport.close()
        if self.transport.is_closing():
            self._start_write_timeout()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timeout()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._cancel_write_timeout()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Uvicorn calls this for every protocol error; `_HttpState` knows the exact status."""
        self._close(self.conn.error_status)

    def _is_idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _cancel_read_timeout(self) -> None:
        self._receiving = False
        if self._read_timeout is not None:
            self._read_timeout.cancel()
            self._read_timeout = None

    def _start_write_timeout(self) -> None:
        """Limit the time that the client has to read its responses: a closing connection waits for them."""
        if self._write_timeout is None:
            self._write_timeout = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _cancel_write_timeout(self) -> None:
        if self._write_timeout is not None:
            self._write_timeout.cancel()
            self._write_timeout = None

    def _free_slot(self) -> None:
        """Close the connection that is idle longest; if all have a request in progress, refuse this one."""
        idle = [
            connection
            for connection in self.connections
            if isinstance(connection, Connection)
            and connection is not self
            and connection._is_idle()
            and not connection.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda connection: connection._idle_since).transport.abort()
        else:
            self._close(503)

    def _close(self, status: int) -> None:
        """Close, with an error response if the protocol state allows one."""
        if self.transport.is_closing():
            return
        refusals: RefusalLog | None = self.app_state.get("refusals")
        if refusals is not None:
            refusals.connection(status, _SENTENCES[status], self.client[0] if self.client else None)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps({"status": "refused", "reason": _SENTENCES[status]}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"connection", b"close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._start_write_timeout()


class _HttpState(h11.Connection):
    """Keeps the status of a protocol error, and sends headers and body of a response in one packet, not two."""

    error_status = 400
    _head: Sequence[bytes] = ()

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint in _SENTENCES:
                self.error_status = error.error_status_hint
            raise
        # The limit of h11 applies only to incomplete headers.
        if isinstance(event, h11.Request) and _size(event) > HEAD_BYTES_MAX:
            self.error_status = 431
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
