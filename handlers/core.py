"""What every step needs: the environment, its database, an HTTP client, a clock and random numbers."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import controller_engine
from handlers.environment.model import Environment, Probe
from handlers.environment.trust import https_context


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Runbook time. A rehearsal lets *speed* runbook seconds pass in each real one.

    Only the waits that give people time go through this clock: the watch and its interval. Timeouts of machines (SSH,
    HTTP, the canary) are real seconds, because a machine is no faster in a rehearsal. It never reads the time of this
    machine: a duration is measured by the monotonic clock, and a time comes from the database (`database.clock`).
    """

    speed: float = 1.0

    def real(self, seconds: float) -> timedelta:
        """The real time in which *seconds* of runbook time pass."""
        return timedelta(seconds=seconds / self.speed)

    async def sleep(self, seconds: float) -> None:
        """Sleep for *seconds* of runbook time."""
        await asyncio.sleep(seconds / self.speed)


@dataclass(frozen=True, kw_only=True)
class Core:
    """The resources of one step. A step opens and closes its own; nothing here is passed between steps."""

    environment: Environment
    database: AsyncEngine
    http: httpx.AsyncClient
    clock: Clock
    random: random.Random


def http_client(probe: Probe) -> httpx.AsyncClient:
    """A client for health addresses: it trusts probe.ca_file as well, and uses no proxy of the environment.

    When that file cannot be used, each https request fails with the reason: a step that asks no host goes on.
    """
    try:
        context: ssl.SSLContext | bool = https_context(probe.ca_file)
        mounts = {}
    except ValueError as error:
        context, mounts = True, {"https://": _Failing(str(error))}
    return httpx.AsyncClient(verify=context, mounts=mounts, timeout=probe.answer_seconds, trust_env=False)


class _Failing(httpx.AsyncBaseTransport):
    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(self._sentence, request=request)


@asynccontextmanager
async def open_core(environment: Environment, *, speed: float = 1.0) -> AsyncIterator[Core]:
    """Open the resources for *environment*; close them at the end, also after an error."""
    database = controller_engine(environment.database)
    try:
        async with http_client(environment.probe) as http:
            yield Core(
                environment=environment,
                database=database,
                http=http,
                clock=Clock(speed=speed),
                random=random.Random(),
            )
    finally:
        await database.dispose()
