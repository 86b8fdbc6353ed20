"""What a fault can reach: the target, the controller's processes, and what goes on around the release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rehearsal import processes
from rehearsal.faults.fault import Fault
from rehearsal.hosts.host import RehearsalHost
from rehearsal.target import Target

DRIVER = "flows.driver"
"""The word on the command line of every process that executes a release."""
SERVER = "flows.local.serving"
"""The same of a Prefect server."""


@dataclass(kw_only=True)
class World:
    """Everything around the release that a fault can break."""

    target: Target
    release_id: str
    variables: Mapping[str, str] = field(repr=False)
    """The environment of every command of the controller's user."""
    prefect_url: str
    clock_file: Path
    """The offset of the controller's clock, which libfaketime reads."""
    wrong: list[str] = field(default_factory=list)
    """What must not happen, and was seen by a fault while it lasted; a sentence for each."""
    timer_stopped: int = 0
    """How many faults keep the timer from running now."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the release is at rest."""

    def controllers(self) -> list[int]:
        """The processes that execute a release now."""
        return processes.with_word(self.target.id, DRIVER)

    def prefect_servers(self) -> list[int]:
        """The processes of the Prefect server."""
        return processes.with_word(self.target.id, SERVER)

    @asynccontextmanager
    async def without_timer(self) -> AsyncIterator[None]:
        """Nothing carries a release on as long as this lasts."""
        self.timer_stopped += 1
        try:
            yield
        finally:
            self.timer_stopped -= 1


Breaker = Callable[[World, Fault, RehearsalHost], AbstractAsyncContextManager[None]]
"""Breaks something when it is entered, and mends it when it is left. The host is the one that the fault strikes."""
