"""The web application of the receiver: a route for each entity type, a health check and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from handlers.entities.document import BODY_BYTES_MAX
from handlers.receiver import body, rate, signature
from handlers.receiver.body_reader import BodyReader, Disconnected, Headers
from handlers.receiver.intake import kind_of, operation_of, webhooks_of
from handlers.receiver.metrics import Metrics
from handlers.receiver.readiness import DatabaseState, HealthCheck
from handlers.receiver.refusal_log import RefusalLog
from handlers.receiver.rejected import Rejected, retry_after
from handlers.receiver.writer import Call, Writer

log = logging.getLogger(__name__)

_WEBHOOKS = "/webhooks/"
_STORED_HEADERS = (b"content-type", b"content-length", b"user-agent", b"host", b"x-request-id")
"""Headers stored with their value. Of all others only the name is stored: a custom header may hold a secret."""
_HEADERS_MAX, _HEADER_MAX = 40, 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings and limits of one receiver."""

    secret: SecretStr | None
    """The secret of the signature. None accepts unsigned calls, for a loopback address only."""
    body_bytes_max: int = BODY_BYTES_MAX
    """An order of 400 lines has more than a megabyte."""
    per_minute_max: int = 20_000
    """Calls of one source: 200 times the expected load of 100 calls a minute."""
    calls_max: int = 256
    """Limit of the calls whose body is being read, and also of the calls that wait to be written."""
    body_seconds: float = 10.0
    write_seconds: float = 4.0
    """Other products of the source time out after five seconds."""


def application(engine: AsyncEngine, settings: Settings) -> FastAPI:
    """A receiver that writes to the queue in *engine*'s database. Its writer runs as long as the application."""
    receiver = _Receiver(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        receiver.writer.start()
        # For refusals of a connection, which never reach a route.
        yield {"refusals": receiver.refusals}
        await receiver.writer.close()

    # No API documentation: machines do not need it, and strangers should not see it.
    app = _Application(
        title="tds-runbook receiver", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.receiver = receiver
    app.add_api_route("/health", receiver.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", receiver.metrics, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _no_such_address)
    return app


class _Application(FastAPI):
    """Routes webhooks past the framework's eight middleware layers: they would double the cost of a call."""

    receiver: _Receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_WEBHOOKS):
            await self.receiver.webhook(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Receiver:
    """The shared state of the routes of one application."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._metrics = Metrics()
        self.refusals = RefusalLog()
        self.writer = Writer(engine, seconds=settings.write_seconds)
        self._health_check = HealthCheck(engine)
        self._settings = settings
        self._secret = None if settings.secret is None else settings.secret.get_secret_value().encode()
        self._rate_limit = rate.RateLimit(settings.per_minute_max)
        self._body_reader = BodyReader(
            bytes_max=settings.body_bytes_max, seconds=settings.body_seconds, open_max=settings.calls_max
        )

    async def webhook(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one webhook. It succeeds only if its events are in the queue, or are duplicates."""
        began = time.perf_counter()
        try:
            answer = await self._accept(scope, receive)
            status, headers = 200, _NO_HEADERS
        except Rejected as rejected:
            self._metrics.refused.labels(rejected.reason).inc()
            self.log_refusal(scope, rejected)
            status, headers = rejected.status, rejected.headers
            answer = {"status": "refused", "reason": rejected.sentence}
        except Disconnected:
            self._metrics.refused.labels("disconnected").inc()
            return
        except Exception:
            # The traceback goes to the log only; the source sends the call again.
            log.exception("webhook failed")
            self._metrics.refused.labels("error").inc()
            status, headers = 500, _NO_HEADERS
            answer = {"status": "refused", "reason": "internal error; nothing was stored"}
        finally:
            self._metrics.seconds.observe(time.perf_counter() - began)
        await _answer(send, status, answer, headers)

    def log_refusal(self, scope: Scope, rejected: Rejected) -> None:
        """Leave one line of a call that was refused."""
        client = scope["client"]
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        self.refusals.call(
            rejected,
            kind=_kind_in(scope["path"]),
            address=rate.address_of(client[0] if client else None),
            length=lengths[0].decode("latin-1") if lengths else "",
        )

    async def health(self) -> Response:
        """Whether webhooks can be stored now: 200 or 503."""
        database = await self._health_check.check()
        up = database is DatabaseState.UP
        answer = {
            "status": "ok" if up else "failing",
            "database": database.value,
            "waiting": self.writer.waiting,
        }
        if self._health_check.reason:
            answer["reason"] = self._health_check.reason
        return JSONResponse(answer, status_code=200 if up else 503)

    async def metrics(self) -> Response:
        """The metrics in the text format of Prometheus."""
        self._metrics.waiting.set(self.writer.waiting)
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _accept(self, scope: Scope, receive: Receive) -> dict[str, object]:
        if scope["method"] != "POST":
            raise Rejected(405, "method", "webhooks must be sent with POST", headers={"Allow": "POST"})
        entity = kind_of(scope["path"].removeprefix(_WEBHOOKS).removesuffix("/"))
        client = scope["client"]
        address = rate.address_of(client[0] if client else None)
        seconds = self._rate_limit.wait_seconds(rate.source_of(address), time.monotonic())
        if seconds:
            raise retry_after("rate", "too many calls from this address", seconds, status=429)
        headers: Headers = scope["headers"]
        charset = body.charset_of(_content_type(headers))
        raw = await self._body_reader.read(headers, receive)
        if body.is_check(raw):
            self._metrics.checks.inc()
            return {"status": "ignored", "reason": "an empty check call"}
        query_pairs = signature.pairs(scope["query_string"])
        form_pairs = [] if body.is_json(raw) else signature.pairs(raw)
        self._verify(headers, [*query_pairs, *form_pairs], b"" if form_pairs else raw)
        operation = operation_of([value for name, value in query_pairs if name == b"event"])
        text = body.form_text(form_pairs, charset) if form_pairs else body.json_text(raw, charset)
        call = Call(
            webhooks=webhooks_of(entity, text, operation),
            headers=_stored_headers(headers),
            address=address,
            verified=self._secret is not None,
        )
        if self.writer.waiting >= self._settings.calls_max:
            raise retry_after("overloaded", "too many calls at once; send it again", 2)
        written = await self.writer.write(call)
        self._metrics.received.labels(entity.value).inc()
        self._metrics.queued.labels(entity.value).inc(len(written.events))
        self._metrics.duplicates.labels(entity.value).inc(written.duplicates)
        return {
            "status": "queued" if written.events else "duplicate",
            "events": [str(id_) for id_ in written.events],
            "duplicates": written.duplicates,
        }

    def _verify(self, headers: Headers, parameters: list[signature.Pair], json_body: bytes) -> None:
        if self._secret is None:
            return
        signatures = [value for name, value in headers if name == signature.HEADER]
        if not signatures:
            raise Rejected(401, "signature", "the header X-Zoho-Webhook-Signature is missing")
        if len(signatures) > 1 or not signature.is_genuine(
            self._secret, signatures[0], parameters, json_body
        ):
            raise Rejected(401, "signature", "the signature does not match this call")


_NO_HEADERS: Mapping[str, str] = {}
_JSON = msgspec.json.encode


def _kind_in(path: str) -> str:
    """The entity type that a path stands for, else the name in it."""
    name = path.removeprefix(_WEBHOOKS).removesuffix("/")
    try:
        return kind_of(name).value
    except Rejected:
        return name


def _content_type(headers: Headers) -> str:
    content_types = [value for name, value in headers if name == b"content-type"]
    if len(content_types) > 1:
        raise Rejected(415, "content_type", "duplicate content type")
    return content_types[0].decode("latin-1") if content_types else ""


def _stored_headers(headers: Headers) -> str:
    """The headers as they are stored, as JSON: without signatures and secrets, limited in number and size."""
    stored_headers = {}
    for name, value in headers[:_HEADERS_MAX]:
        stored = "***"
        if name in _STORED_HEADERS:
            stored = value[:_HEADER_MAX].replace(b"\x00", b"").decode("latin-1")
        if not name.startswith(b"x-runbook"):
            stored_headers[name[:_HEADER_MAX].decode("latin-1")] = stored
    return _JSON(stored_headers).decode()


async def _answer(
    send: Send, status: int, answer: Mapping[str, object], extra_headers: Mapping[str, str]
) -> None:
    content = _JSON(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    headers += [(name.lower().encode(), value.encode()) for name, value in extra_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    app = request.app
    if request.method == "POST" and isinstance(app, _Application):
        # A webhook rule with a wrong address.
        rejected = Rejected(error.status_code, "no_such_address", str(error.detail))
        app.receiver.log_refusal(request.scope, rejected)
    sentence = {
        404: "not found; send webhooks to /webhooks/{kind}",
        405: "use GET for this address",
    }.get(error.status_code, str(error.detail))
    answer = {"status": "refused", "reason": sentence}
    return JSONResponse(answer, status_code=error.status_code, headers=error.headers)
