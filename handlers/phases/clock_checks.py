"""Whether the clocks of controller, database and hosts agree: ages and times are compared across them.

Only the database's clock decides during a release. But the ERP writes times by its hosts' clocks, and people read logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core
from handlers.database import clock as database_clock
from handlers.database.transaction import transaction
from handlers.errors import RunbookError
from handlers.host import facts
from handlers.host.clock import OURS, Offset
from handlers.host.ssh import Shell, open_hosts
from handlers.release.planned import Check
from handlers.status.wrapping import age

CLOCKS_DIFFER_MAX_SECONDS = 5.0
"""Less than any age that decides something, and more than a working time service ever leaves."""
CONTROLLER, DATABASE = "the controller", "the database"
_NAMED_MAX = 3
"""The clocks that a sentence compares with by name."""


async def read_database_clock(database: AsyncEngine) -> Offset | None:
    """How far the database's clock is ahead of the controller's; None when the database cannot be asked."""
    try:
        async with transaction(database) as tx:
            # The first query pays for the connection; only the second is measured.
            await database_clock.now(tx)
            sent = time.time()
            at = (await database_clock.now(tx)).timestamp()
            received = time.time()
    except RunbookError:
        return None
    return Offset(low=at - received, high=at - sent)


def clock_checks(offsets: Mapping[str, Offset]) -> list[Check]:
    """One failed check for each clock that is more than 5 s off, otherwise a good one. *offsets* are from ours."""
    clocks = {CONTROLLER: OURS, **offsets}
    if wrong := wrong_clocks(clocks):
        return [Check(name="clocks", good=False, sentence=sentence) for sentence in wrong]
    middles = [clock.middle for clock in clocks.values()]
    sentence = f"{_named(list(clocks))} agree within {max(1.0, max(middles) - min(middles)):.0f} s"
    return [Check(name="clocks", good=True, sentence=sentence)]


def wrong_clocks(clocks: Mapping[str, Offset]) -> list[str]:
    """A sentence for each clock that differs from most others: which, how far, in which direction, and what to do."""
    right = max(clocks, key=lambda name: (len(_agreeing(clocks, name)), name == DATABASE))
    agreeing = _agreeing(clocks, right)
    sentences = []
    for name, clock in clocks.items():
        if name in agreeing:
            continue
        ahead = clock.ahead_of(clocks[right]).middle
        direction = "ahead of" if ahead > 0 else "behind"
        cure = "correct it" if len(agreeing) > 1 else "correct the wrong one"
        sentences.append(
            f"the clock of {name} is {age(abs(ahead))} {direction} that of {_named(agreeing)}: {cure} with a time "
            "service (NTP; see `timedatectl` there), then check again"
        )
    return sentences


async def find_wrong_clocks(core: Core) -> str:
    """What is wrong with the clocks right now; empty when they agree. A host that cannot be reached is left out."""
    offsets = {}
    async with open_hosts(core.environment, connected=False) as shells:
        database, *hosts = await asyncio.gather(read_database_clock(core.database), *map(_host, shells))
    if database is not None:
        offsets[DATABASE] = database
    offsets |= {shell.host.name: host for shell, host in zip(shells, hosts, strict=True) if host is not None}
    return "; ".join(wrong_clocks({CONTROLLER: OURS, **offsets}))


async def _host(shell: Shell) -> Offset | None:
    try:
        return await facts.clock(shell)
    except RunbookError:
        return None


def _agreeing(clocks: Mapping[str, Offset], name: str) -> list[str]:
    """The clocks that do not differ from this one for certain, with itself."""
    return [
        other
        for other, clock in clocks.items()
        if not clock.ahead_of(clocks[name]).exceeds(CLOCKS_DIFFER_MAX_SECONDS)
    ]


def _named(names: list[str]) -> str:
    """`the controller, the database and web-1`, shortened where there are many."""
    shown = (
        names if len(names) <= _NAMED_MAX + 1 else [*names[:_NAMED_MAX], f"{len(names) - _NAMED_MAX} others"]
    )
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
