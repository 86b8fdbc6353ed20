"""Holding the intake: what the gate lets through is set as limits of the queue, in its own name.

A limit ends by itself soon after a look that does not come, so a dead controller never stops the queue.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from handlers.core import Core
from handlers.gate.obeyed import ignored
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.sequential import Gate
from handlers.phases.numbers import parameters
from handlers.queue import throttle
from handlers.queue.event import EntityType
from handlers.release.phase import Release

log = logging.getLogger(__name__)

HOLD_SECONDS = 60.0
"""A limit of the gate ends after this time, real seconds, if no look renews it: its controller may be dead."""
HELD_BECAUSE = "until the release is proven"
_TYPES = frozenset(map(str, EntityType))


class Intake:
    """What one gate holds, and whether the workers keep to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        """Under which it sets its limits."""
        self.admitted: Counter[str] = Counter()
        """What workers took since the last limits, by type."""
        self.set_at: datetime | None = None
        """When those were set."""
        self.ignored = ""
        """That the workers do not honour the limits; empty as long as they do."""
        self._holds = True
        """Whether it may have limits in force: a controller before it may have left some."""
        self._quotas: Mapping[str, int] = {}

    async def steer(self, core: Core, gate: Gate, elapsed_s: float) -> None:
        """Let through what the gate says until the next look. What a person holds stays theirs."""
        quotas = gate.throttled()
        in_force: Mapping[str, int] = {}
        if self._holds or quotas:
            set_ = await hold_intake(core, self.name, quotas, gate.parameters.tick_s)
            in_force = {stream: quota for stream, quota in quotas.items() if stream in set_}
            self.set_at = max(set_.values(), default=None)
        if core.clock.real(elapsed_s).total_seconds() > HOLD_SECONDS:
            # What was set at the last look ended before this one.
            self._quotas = {}
        self._count(in_force, elapsed_s, gate.parameters.tick_s)
        self._holds = bool(quotas)

    def _count(self, quotas: Mapping[str, int], elapsed_s: float, tick_s: float) -> None:
        """Notice workers that take more than the limits of the gate in force let through: then it works without."""
        before, self._quotas = self._quotas, quotas
        admitted, self.admitted = self.admitted, Counter()
        allowed = {stream: max(before[stream], quotas[stream]) for stream in before if stream in quotas}
        if allowed and not self.ignored:
            self.ignored = ignored(admitted, allowed, max(elapsed_s, tick_s), tick_s=tick_s)
            if self.ignored:
                log.warning("%s; the gate goes on without them", self.ignored)


async def hold_intake(
    core: Core, name: str, quotas: Mapping[str, int], tick_seconds: float
) -> Mapping[str, datetime]:
    """Let so many events of each stream through in *tick_seconds* (runbook time). What *name* held besides is free.

    It ends by itself soon after a look that does not come. Nothing where the controller applies the events itself.
    Returns the streams whose limit is now that of *name*, and when it was set: a person's stays.
    """
    if core.environment.execution != "workers":
        return {}
    limits_ = {
        None if stream == POOLED else EntityType(stream): quota
        for stream, quota in quotas.items()
        if stream == POOLED or stream in _TYPES
    }
    tick = core.clock.real(tick_seconds).total_seconds()
    throttled = await throttle.throttle(
        core.database,
        limits_,
        by=name,
        seconds=HOLD_SECONDS,
        tick_seconds=min(tick, 10.0),
        reason=HELD_BECAUSE,
    )
    return {str(entity or POOLED): limit.set_at for entity, limit in throttled.ours.items()}


async def hold_at_the_switch(core: Core, release: Release) -> None:
    """Before the released workers start: let only probes through, until the first look says more."""
    numbers = parameters(core.environment, release.speed)
    await hold_intake(core, throttle.gate_of(release.id), {POOLED: numbers.probe}, numbers.tick_s)


async def open_intake(core: Core, release: Release) -> None:
    """Give the intake free, whatever the gate held."""
    await throttle.release(core.database, by=throttle.gate_of(release.id))


async def close_intake(core: Core, release: Release) -> None:
    """Let nothing through while hosts go back: what piled up before the gate would all go to the workers to leave.

    It ends by itself, or with `open_intake`: a host that is away must not stop the others.
    """
    await hold_intake(core, throttle.gate_of(release.id), {POOLED: 0}, Parameters().tick_s)
