"""The web application of the receiver: one address for each kind of webhook, a health answer, and numbers."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from handlers.receiver import body, rate, signature
from handlers.receiver.arrival import arrivals, kind_of, operation_of
from handlers.receiver.counting import Counts
from handlers.receiver.health import Database, Health
from handlers.receiver.refusing import No, later
from handlers.receiver.writing import Call, Writer
from handlers.webhooks.event import EntityType

log = logging.getLogger(__name__)

_KEPT_HEADERS = ("content-type", "content-length", "user-agent", "host", "x-request-id")
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
    """Calls at once. With the largest bodies this bounds the memory."""
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
    app = FastAPI(
        title="tds-runbook receiver", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.add_api_route("/webhooks/{kind}", receiver.webhook, methods=["POST"], response_model=None)
    app.add_api_route("/health", receiver.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", receiver.metrics, methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, _no_such_address)
    return app


class _Receiver:
    """What the addresses of one application share."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.counts = Counts()
        self.writer = Writer(engine, seconds=settings.write_seconds)
        self._health = Health(engine)
        self._settings = settings
        self._rate = rate.Rate(settings.per_minute_max)
        self._open = 0

    async def webhook(self, kind: str, request: Request) -> Response:
        """Take one webhook; the answer is a success only when it is in the queue, or is already known."""
        began = time.perf_counter()
        self._open += 1
        try:
            return await self._take(kind_of(kind), request)
        except No as no:
            self.counts.refused.labels(no.reason).inc()
            return _refusal(no)
        except ClientDisconnect:
            self.counts.refused.labels("disconnected").inc()
            return Response(status_code=400)
        except Exception:
            # Not a stack trace for a stranger: it is for the log, and the source tries again.
            log.exception("a webhook could not be taken")
            self.counts.refused.labels("error").inc()
            return _refusal(No(500, "error", "the receiver failed; nothing was kept"))
        finally:
            self._open -= 1
            self.counts.seconds.observe(time.perf_counter() - began)

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

    async def _take(self, entity: EntityType, request: Request) -> Response:
        address = rate.address_of(request.client.host if request.client else None)
        seconds = self._rate.wait_seconds(rate.source_of(address), time.monotonic())
        if seconds:
            raise later("rate", "too many calls from this address", seconds, status=429)
        if self._open > self._settings.calls_max:
            raise later("overloaded", "too many calls at once: send it again", 2)
        charset = body.charset_of(request.headers.get("content-type", ""))
        raw = await self._read(request)
        if body.is_check(raw):
            self.counts.checks.inc()
            return JSONResponse({"status": "ignored", "reason": "an empty check call"})
        in_query = signature.pairs(request.scope["query_string"])
        in_form = [] if body.is_json(raw) else signature.pairs(raw)
        self._verify(request, [*in_query, *in_form], b"" if in_form else raw)
        operation = operation_of(
            [value.decode("utf-8", "replace") for name, value in in_query if name == b"event"]
        )
        text = body.form_text(in_form, charset) if in_form else body.json_text(raw, charset)
        call = Call(
            arrivals=arrivals(entity, text, operation),
            headers=_kept(request.headers),
            address=address,
            verified=self._settings.secret is not None,
        )
        written = await self.writer.write(call)
        self.counts.received.labels(entity.value).inc()
        self.counts.queued.labels(entity.value).inc(len(written.events))
        self.counts.duplicates.labels(entity.value).inc(written.duplicates)
        return JSONResponse(
            {
                "status": "queued" if written.events else "duplicate",
                "events": [str(id_) for id_ in written.events],
                "duplicates": written.duplicates,
            }
        )

    def _verify(self, request: Request, parameters: list[signature.Pair], json_body: bytes) -> None:
        secret = self._settings.secret
        if secret is None:
            return
        given = request.headers.get(signature.HEADER)
        if given is None:
            raise No(401, "signature", f"the signature is missing: it belongs into {signature.HEADER}")
        if not signature.is_genuine(secret.get_secret_value(), given, parameters, json_body):
            raise No(401, "signature", "the signature does not belong to this call")

    async def _read(self, request: Request) -> bytes:
        """The whole body, as far as it may be read."""
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise No(415, "content_type", "the body must not be compressed")
        most = self._settings.body_bytes_max
        too_large = No(413, "size", f"the body is larger than {most} bytes", headers={"Connection": "close"})
        length = request.headers.get("content-length", "")
        if re.fullmatch(r"[0-9]{1,20}", length) and int(length) > most:
            raise too_large
        read = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    read += chunk
                    if len(read) > most:
                        raise too_large
        except TimeoutError:
            headers = {"Connection": "close"}
            raise No(408, "slow", "the body did not come in time", headers=headers) from None
        return bytes(read)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as they may be written down: no signature, no key, nothing without end."""
    kept = {}
    for name, value in list(headers.items())[:_HEADERS_MAX]:
        shown = value.replace("\x00", "")[:_HEADER_MAX] if name in _KEPT_HEADERS else "***"
        if not name.startswith("x-runbook"):
            kept[name[:_HEADER_MAX]] = shown
    return kept


def _refusal(no: No) -> Response:
    told = {"status": "refused", "reason": no.sentence}
    return JSONResponse(told, status_code=no.status, headers=dict(no.headers))


async def _no_such_address(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: "there is nothing at this address: webhooks go to /webhooks/{kind}",
        405: "webhooks are sent with POST",
    }.get(error.status_code, str(error.detail))
    told = {"status": "refused", "reason": sentence}
    return JSONResponse(told, status_code=error.status_code, headers=error.headers)
