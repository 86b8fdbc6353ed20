"""Injects faults into a running release: each waits for its moment, strikes, and is mended after its time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from rehearsal.faults import controller, database, hosts
from rehearsal.faults.fault import KINDS, Fault, Kind
from rehearsal.faults.moments import Moments, Reached
from rehearsal.faults.world import Breaker, World
from rehearsal.hosts.host import RehearsalHost

BREAKERS: Mapping[Kind, Breaker] = {
    Kind.DATABASE_AWAY: database.away,
    Kind.DATABASE_CRASH: database.crash,
    Kind.DATABASE_READONLY: database.readonly,
    Kind.DATABASE_LOGIN: database.login_refused,
    Kind.HOST_AWAY: hosts.away,
    Kind.HOST_REFUSES: hosts.refuses,
    Kind.ANSWERS_LOST: hosts.answers_lost,
    Kind.LOGIN_REFUSED: hosts.login_refused,
    Kind.HOST_REBOOT: hosts.reboot,
    Kind.DISK_FULL: hosts.disk_full,
    Kind.UNIT_HANGS: hosts.unit_hangs,
    Kind.NOISY_SHELL: hosts.noisy_shell,
    Kind.CONTROLLER_KILLED: controller.killed,
    Kind.CONTROLLER_PAUSED: controller.paused,
    Kind.SECOND_MANAGER: controller.second_manager,
    Kind.CANCELLED: controller.cancelled,
    Kind.PREFECT_KILLED: controller.prefect_killed,
    Kind.CLOCK_JUMP: controller.clock_jump,
    Kind.ENVIRONMENT_EDITED: controller.edited,
    Kind.ENVIRONMENT_TORN: controller.torn,
}
_AT_ONCE = frozenset({Kind.SECOND_MANAGER, Kind.CANCELLED, Kind.PREFECT_KILLED, Kind.CLOCK_JUMP})
"""Kinds that are over when they have struck."""


_ONE_AT_A_TIME: Mapping[Kind, str] = {
    Kind.DATABASE_AWAY: "database",
    Kind.DATABASE_CRASH: "database",
    Kind.DATABASE_READONLY: "database",
    Kind.DATABASE_LOGIN: "database",
    Kind.HOST_AWAY: "cable",
    Kind.HOST_REFUSES: "cable",
    Kind.ANSWERS_LOST: "cable",
    Kind.LOGIN_REFUSED: "cable",
    Kind.HOST_REBOOT: "cable",
    Kind.ENVIRONMENT_EDITED: "file",
    Kind.ENVIRONMENT_TORN: "file",
}
"""What a kind breaks. A second fault waits until the first is mended: a server that is stopped cannot be stopped."""


def _struck_thing(kind: Kind, host: RehearsalHost) -> tuple[object, ...]:
    return (_ONE_AT_A_TIME.get(kind, kind), host.name if KINDS[kind].on_host else "")


@dataclass(kw_only=True)
class Injected:
    """One fault and what became of it."""

    fault: Fault
    host: str | None = None
    at: datetime | None = None
    ended_at: datetime | None = None
    problem: str = ""
    """Why it could not be injected."""

    @property
    def outcome(self) -> str:
        """What became of it, in one or two words."""
        if self.problem:
            return f"not injected: {self.problem}"
        return "never came" if self.at is None else "injected"

    def as_json(self) -> dict[str, object]:
        """The fault for the last line of `--json`."""
        return {
            "kind": self.fault.kind,
            "moment": str(self.fault.moment),
            "host": self.host,
            "seconds": self.fault.seconds,
            "at": self.at,
            "ended_at": self.ended_at,
            "outcome": self.outcome,
        }


class Injector:
    """The faults of one rehearsal."""

    def __init__(self, world: World, faults: Sequence[Fault], engine: AsyncEngine) -> None:
        self.injected = [Injected(fault=fault) for fault in faults]
        self._world = world
        self._moments = Moments(engine, world.release_id)
        self._active = 0
        self._turns: defaultdict[tuple[object, ...], asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def active(self) -> bool:
        """Whether something is broken now that will be mended before the end of the release."""
        return self._active > 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inject while the block runs. At its end everything is mended."""
        watching = asyncio.create_task(self._moments.watch())
        tasks = [asyncio.create_task(self._inject(one)) for one in self.injected]
        try:
            yield
        finally:
            self._world.ended.set()
            # Faults that wait for the end are mended by it. The others are here only after an error.
            for one, task in zip(self.injected, tasks, strict=True):
                if one.at is None or one.fault.seconds is not None:
                    task.cancel()
            watching.cancel()
            await asyncio.wait({watching, *tasks})
            if not watching.cancelled():
                self._world.wrong.append(f"the moments were not seen any more: {watching.exception()!r}")

    async def _inject(self, one: Injected) -> None:
        reached = await self._moments.reached(one.fault.moment)
        host = self._struck(reached)
        one.host = host.name if KINDS[one.fault.kind].on_host else None
        async with self._turns[_struck_thing(one.fault.kind, host)]:
            await self._strike(one, host)

    async def _strike(self, one: Injected, host: RehearsalHost) -> None:
        lasting = one.fault.seconds is None and one.fault.kind not in _AT_ONCE
        self._active += not lasting
        one.at = datetime.now(UTC)
        try:
            async with BREAKERS[one.fault.kind](self._world, one.fault, host):
                await self._last(one.fault)
        except Exception as error:
            # A fault that cannot be injected must not end the release that it was meant for.
            one.problem = f"{type(error).__name__}: {error}"
        finally:
            # Also where the release has ended first: then it is mended now.
            one.ended_at = datetime.now(UTC)
            self._active -= not lasting

    def _struck(self, reached: Reached) -> RehearsalHost:
        """The host of the operation, else the last one: with it the first, lone host is through."""
        named = [host for host in self._world.target.hosts if host.name == reached.host]
        return named[0] if named else self._world.target.hosts[-1]

    async def _last(self, fault: Fault) -> None:
        if fault.kind in _AT_ONCE:
            return
        if fault.seconds is None:
            await self._world.ended.wait()
        else:
            await asyncio.sleep(fault.seconds)
