"""The web application of the receiver: one address for each kind of webhook, a health answer, and numbers."""

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

from handlers.receiver import body, rate, signature
from handlers.receiver.body_reader import Bodies, Gone, Headers
from handlers.receiver.intake import arrivals, kind_of, operation_of
from handlers.receiver.metrics import Counts
from handlers.receiver.readiness import Database, Health
from handlers.receiver.rejected import Rejected, later
from handlers.receiver.writer import Call, Writer

log = logging.getLogger(__name__)

_WEBHOOKS = "/webhooks/"
_KEPT_HEADERS = (b"content-type", b"content-length", b"user-agent", b"host", b"x-request-id")
"""Headers whose value is kept. Of all others only the name is: an administrator's own header may be a key."""
_HEADERS_MAX, _HEADER_MAX = 40, 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one receiver takes."""

    secret: SecretStr | None
    """The secret of the signature. None accepts unsigned calls: for a loopback address only."""
    body_bytes_max: int = 1024 * 1024
    per_minute_max: int = 20_000
    """Calls of one source; twice the hundredfold of the hundred a minute that are expected."""
    calls_max: int = 256
    """Calls whose body is being read, and again calls that wait for being written."""
    body_seconds: float = 10.0
    write_seconds: float = 4.0
    """Sister products of the source give up after five seconds."""


def application(engine: AsyncEngine, settings: Settings) -> FastAPI:
    """A receiver that writes to the queue in *engine*'s database. Its writer lives as long as the application."""
    receiver = _Receiver(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        receiver.writer.start()
        yield
        await receiver.writer.close()

    # A page with the addresses is of no use to a machine, and none of a stranger's business.
    app = _Application(
        title="tds-runbook receiver", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.receiver = receiver
    app.add_api_route("/health", receiver.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", receiver.metrics, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _no_such_address)
    return app


class _Application(FastAPI):
    """Takes webhooks past the framework's layers: eight of them, none of any use here, cost as much as the work."""

    receiver: _Receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_WEBHOOKS):
            await self.receiver.webhook(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Receiver:
    """What the addresses of one application share."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.counts = Counts()
        self.writer = Writer(engine, seconds=settings.write_seconds)
        self._health = Health(engine)
        self._settings = settings
        self._secret = None if settings.secret is None else settings.secret.get_secret_value().encode()
        self._rate = rate.Rate(settings.per_minute_max)
        self._bodies = Bodies(
            bytes_max=settings.body_bytes_max, seconds=settings.body_seconds, open_max=settings.calls_max
        )

    async def webhook(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one webhook; the answer is a success only when it is in the queue, or is already known."""
        began = time.perf_counter()
        try:
            told = await self._take(scope, receive)
            status, headers = 200, _NO_HEADERS
        except Rejected as no:
            self.counts.refused.labels(no.reason).inc()
            status, headers, told = no.status, no.headers, {"status": "refused", "reason": no.sentence}
        except Gone:
            self.counts.refused.labels("disconnected").inc()
            return
        except Exception:
            # Not a stack trace for a stranger: it is for the log, and the source tries again.
            log.exception("a webhook could not be taken")
            self.counts.refused.labels("error").inc()
            status, headers = 500, _NO_HEADERS
            told = {"status": "refused", "reason": "the receiver failed; nothing was kept"}
        finally:
            self.counts.seconds.observe(time.perf_counter() - began)
        await _answer(send, status, told, headers)

    async def health(self) -> Response:
        """Whether webhooks can be written down now."""
        database = await self._health.look()
        good = database is Database.UP
        told = {
            "status": "ok" if good else "failing",
            "database": database.value,
            "waiting": self.writer.waiting,
        }
        return JSONResponse(told, status_code=200 if good else 503)

    async def metrics(self) -> Response:
        """The numbers, as Prometheus reads them."""
        self.counts.waiting.set(self.writer.waiting)
        return Response(generate_latest(self.counts.registry), media_type=CONTENT_TYPE_LATEST)

    async def _take(self, scope: Scope, receive: Receive) -> dict[str, object]:
        if scope["method"] != "POST":
            raise Rejected(405, "method", "webhooks are sent with POST", headers={"Allow": "POST"})
        entity = kind_of(scope["path"].removeprefix(_WEBHOOKS).removesuffix("/"))
        client = scope["client"]
        address = rate.address_of(client[0] if client else None)
        seconds = self._rate.wait_seconds(rate.source_of(address), time.monotonic())
        if seconds:
            raise later("rate", "too many calls from this address", seconds, status=429)
        headers: Headers = scope["headers"]
        charset = body.charset_of(_content_type(headers))
        raw = await self._bodies.read(headers, receive)
        if body.is_check(raw):
            self.counts.checks.inc()
            return {"status": "ignored", "reason": "an empty check call"}
        in_query = signature.pairs(scope["query_string"])
        in_form = [] if body.is_json(raw) else signature.pairs(raw)
        self._verify(headers, [*in_query, *in_form], b"" if in_form else raw)
        operation = operation_of([value for name, value in in_query if name == b"event"])
        text = body.form_text(in_form, charset) if in_form else body.json_text(raw, charset)
        call = Call(
            arrivals=arrivals(entity, text, operation),
            headers=_kept(headers),
            address=address,
            verified=self._secret is not None,
        )
        if self.writer.waiting >= self._settings.calls_max:
            raise later("overloaded", "too many calls at once: send it again", 2)
        written = await self.writer.write(call)
        self.counts.received.labels(entity.value).inc()
        self.counts.queued.labels(entity.value).inc(len(written.events))
        self.counts.duplicates.labels(entity.value).inc(written.duplicates)
        return {
            "status": "queued" if written.events else "duplicate",
            "events": [str(id_) for id_ in written.events],
            "duplicates": written.duplicates,
        }

    def _verify(self, headers: Headers, parameters: list[signature.Pair], json_body: bytes) -> None:
        if self._secret is None:
            return
        given = [value for name, value in headers if name == signature.HEADER]
        if not given:
            raise Rejected(
                401, "signature", "the signature is missing: it belongs into X-Zoho-Webhook-Signature"
            )
        if len(given) > 1 or not signature.is_genuine(self._secret, given[0], parameters, json_body):
            raise Rejected(401, "signature", "the signature does not belong to this call")


_NO_HEADERS: Mapping[str, str] = {}
_JSON = msgspec.json.encode


def _content_type(headers: Headers) -> str:
    found = [value for name, value in headers if name == b"content-type"]
    if len(found) > 1:
        raise Rejected(415, "content_type", "the content type stands twice, so nobody can say which is meant")
    return found[0].decode("latin-1") if found else ""


def _kept(headers: Headers) -> str:
    """The headers as they may be written down, as JSON: no signature, no key, nothing without end."""
    kept = {}
    for name, value in headers[:_HEADERS_MAX]:
        shown = "***"
        if name in _KEPT_HEADERS:
            shown = value[:_HEADER_MAX].replace(b"\x00", b"").decode("latin-1")
        if not name.startswith(b"x-runbook"):
            kept[name[:_HEADER_MAX].decode("latin-1")] = shown
    return _JSON(kept).decode()


async def _answer(send: Send, status: int, told: Mapping[str, object], more: Mapping[str, str]) -> None:
    content = _JSON(told)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _no_such_address(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: "there is nothing at this address: webhooks go to /webhooks/{kind}",
        405: "this address is read with GET",
    }.get(error.status_code, str(error.detail))
    told = {"status": "refused", "reason": sentence}
    return JSONResponse(told, status_code=error.status_code, headers=error.headers)
