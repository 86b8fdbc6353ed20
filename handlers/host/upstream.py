"""The upstream: whether the API that the ERP mirrors answers, asked by us and not through a host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from handlers.core import Core
from handlers.environment.around import Upstream
from handlers.host.health_fault import connection_fault, tls_fault

_KEY = "upstream.url"
_AGAIN_SECONDS = 1.0
"""The longest pause before a failed request is repeated, where somebody waits for the answer. Real seconds."""


@dataclass(frozen=True, kw_only=True)
class UpstreamAnswer:
    """Whether the upstream answers, with a sentence that names its address."""

    up: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class UpstreamState:
    """What several answers in a row say: one failed answer is not an outage. Pure."""

    up: bool = True
    failed: int = 0
    """The number of failed answers in a row."""
    sentence: str = ""
    """The newest answer."""

    def after(self, answer: UpstreamAnswer, failures: int) -> UpstreamState:
        """The state after one more answer. It is away from the *failures*th failed one on, until a good one."""
        failed = 0 if answer.up else self.failed + 1
        return UpstreamState(up=failed < failures, failed=min(failed, failures), sentence=answer.sentence)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> UpstreamState:
        """From what `asdict` has made of it."""
        return cls(
            up=bool(stored.get("up", True)),
            failed=int(stored.get("failed", 0)),
            sentence=str(stored.get("sentence", "")),
        )


async def ask(core: Core, *, within: float | None = None) -> UpstreamAnswer | None:
    """Ask the upstream once, for *within* seconds at most; None where the environment has none. Never raises.

    Anything but an expected status is a failed answer: 429, 5xx, a wrong certificate, a name that is not found.
    """
    upstream = core.environment.upstream
    if upstream is None:
        return None
    where = shown(upstream)
    seconds = upstream.answer_seconds if within is None else min(within, upstream.answer_seconds)
    status, problem = await _status(core, upstream, seconds)
    if problem:
        return UpstreamAnswer(up=False, sentence=f"{where} does not answer: {problem}")
    if status in upstream.status:
        return UpstreamAnswer(up=True, sentence=f"{where} answers {status}")
    expected = " or ".join(map(str, upstream.status))
    return UpstreamAnswer(up=False, sentence=f"{where} answers {status} instead of {expected}")


async def confirmed(core: Core) -> UpstreamAnswer | None:
    """The same, but a failed request is repeated soon: it is away only when upstream.failures in a row failed."""
    upstream = core.environment.upstream
    answer = await ask(core)
    for _ in range(upstream.failures - 1 if upstream is not None else 0):
        if answer is None or answer.up:
            break
        assert upstream is not None
        await asyncio.sleep(min(_AGAIN_SECONDS, upstream.interval_seconds))
        answer = await ask(core)
    return answer


def shown(upstream: Upstream) -> str:
    """The host of its address. Path and query may contain an organisation or a key."""
    try:
        where = httpx.URL(upstream.url)
    except httpx.InvalidURL:
        return _KEY
    return f"{where.host}:{where.port}" if where.port else where.host or _KEY


async def _status(core: Core, upstream: Upstream, seconds: float) -> tuple[int, str]:
    """The status of one answer, or the problem that prevented it."""
    try:
        # The timeout covers the whole request. The body is not read: only that it answers counts.
        async with (
            asyncio.timeout(seconds),
            core.http.stream(
                "GET",
                upstream.url,
                headers={"Cache-Control": "no-cache"},
                timeout=httpx.Timeout(seconds),
            ) as response,
        ):
            status = response.status_code
    except (TimeoutError, httpx.TimeoutException):
        return 0, f"no answer within {seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return 0, await connection_fault(error, upstream.url, key=_KEY)
    if status == httpx.codes.BAD_REQUEST and (problem := await tls_fault(upstream.url, key=_KEY)):
        return status, problem
    return status, ""
