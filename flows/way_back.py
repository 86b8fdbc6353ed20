"""The loop of the way back: one host is tried until it is back, whatever happens to the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic

from handlers.errors import LockLost
from handlers.host.way_back import HostReturn

log = logging.getLogger(__name__)

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before a host is tried again; the last one repeats. Real seconds: a host is no faster in a rehearsal."""


async def until_back(
    host: HostReturn,
    attempt: Callable[[HostReturn], Awaitable[HostReturn]],
    deadline: float,
    alarm: Callable[[HostReturn], None] | None = None,
) -> HostReturn:
    """Try a host until it is back, obeys another controller, or the *deadline* (monotonic) has passed.

    Every failed try is logged as an error, and *alarm* is called: until the host is back, the revision to leave may
    still run there.
    """
    while not host.back and not host.gave_up:
        host = await _try(host, attempt)
        pause = PAUSES[min(host.tries, len(PAUSES)) - 1]
        if host.back or host.gave_up or monotonic() + pause > deadline:
            break
        log.error(
            "%s is not back after try %d: %s; next try in %g s", host.host, host.tries, host.sentence, pause
        )
        if alarm is not None:
            alarm(host)
        await asyncio.sleep(pause)
    return host


async def _try(host: HostReturn, attempt: Callable[[HostReturn], Awaitable[HostReturn]]) -> HostReturn:
    try:
        return await attempt(host)
    except LockLost:
        raise
    except Exception as error:
        # Whatever it is, the next try may succeed. The log has the traceback.
        log.exception("the way back of %s", host.host)
        return replace(host, tries=host.tries + 1, sentence=f"{type(error).__name__}: {error}")
