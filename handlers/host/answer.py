"""The answer of a host's health endpoint: asked for once, and read by dotted paths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from handlers.core import Core
from handlers.environment.model import Host
from handlers.host.health_fault import connection_fault, tls_fault

MISSING = object()
"""The value at a path that the answer does not have."""
_DEPTH_MAX = 4
"""The levels of an answer whose keys are listed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one host, or the problem that prevented reading it."""

    host: str
    problem: str = ""
    """Why there is no JSON to read; empty when there is."""
    status: int | None = None
    """The HTTP status; None without an answer."""
    content: object = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def faults(self) -> list[str]:
        """The status, unless it is 2xx, and the problem."""
        bad_status = self.status is not None and not self.is_success
        return [*([f"HTTP {self.status}"] if bad_status else []), *([self.problem] if self.problem else [])]


async def ask(core: Core, host: Host) -> Answer:
    """Ask the health endpoint of *host* once. A failure is part of the answer and never raised."""
    seconds = core.environment.probe.answer_seconds
    try:
        # The timeout covers the whole answer: a server that sends one byte a second is not healthy.
        async with asyncio.timeout(seconds):
            # There may be a cache in front of the health endpoint.
            response = await core.http.get(host.health_url, headers={"Cache-Control": "no-cache"})
    except TimeoutError:
        return Answer(host=host.name, problem=f"no answer within {seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(host=host.name, problem=await connection_fault(error, host.health_url))
    status = response.status_code
    if response.has_redirect_location:
        # Not followed: a load balancer or a login page would answer for the host.
        where = response.headers["Location"]
        problem = f"it redirects to {where}: set health_url to the address that answers itself"
        return Answer(host=host.name, status=status, problem=problem)
    if status == httpx.codes.BAD_REQUEST and (problem := await tls_fault(host.health_url)):
        return Answer(host=host.name, status=status, problem=problem)
    try:
        return Answer(host=host.name, status=status, content=_json(response))
    except ValueError:
        return Answer(host=host.name, status=status, problem="its answer is not JSON")


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except UnicodeDecodeError:
        # Not in a form of Unicode: in the charset that the header names.
        return json.loads(response.text)


def value_at(content: object, dotted: str) -> Any:
    """The value at a dotted path, or MISSING."""
    for name in dotted.split("."):
        if not isinstance(content, dict) or name not in content:
            return MISSING
        content = content[name]
    return content


def values_at(content: object, dotted: str) -> Any:
    """Like `value_at`, but a star, or any name at a list, visits each entry; the result is then a list."""
    if not dotted:
        return content
    name, _, rest = dotted.partition(".")
    if isinstance(content, list) and name != "*":
        name, rest = "*", dotted
    if name == "*" and isinstance(content, dict | list):
        entries = content.values() if isinstance(content, dict) else content
        values = [values_at(entry, rest) for entry in entries]
        return MISSING if MISSING in values else values
    return values_at(content[name], rest) if isinstance(content, dict) and name in content else MISSING


def paths(content: object, *, above: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """The dotted path and the value of each key, to a bounded depth; an object in a list stands for all of them."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        content = content[0]
    elif not isinstance(content, dict) and above:
        yield ".".join(above), content
        return
    if not isinstance(content, dict):
        return
    if not content or len(above) == _DEPTH_MAX:
        yield ".".join(above), content
        return
    for name, value in content.items():
        yield from paths(value, above=(*above, str(name)))
