"""The timer that carries a release on, as systemd does in a real place, and the end of a release under faults."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.queries import queries
from handlers.database.sqlstate import DRIVER_ERRORS
from handlers.release.phase import Phase
from rehearsal.commands import runbook
from rehearsal.faults.inject import Injector
from rehearsal.faults.world import World

SQL = queries(__name__)
INTERVAL_SECONDS = 10.0
"""The pause between two runs. A real timer runs each minute; here a minute of the watch is a second."""
_LOOK_SECONDS = 0.5
_QUIET_RUNS = 2
"""Runs in a row that find nothing to carry on, before an unfinished release is left to a person."""
ENDED = frozenset({Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.REFUSED, Phase.ABORTED})
"""Phases that nothing carries on."""


@dataclass(frozen=True, kw_only=True)
class _State:
    phase: Phase
    is_locked: bool


class Timer:
    """Runs `runbook resume --due` again and again until the release has ended, or waits for a person."""

    def __init__(
        self, world: World, injector: Injector, engine: AsyncEngine, *, limit_seconds: float
    ) -> None:
        self._world = world
        self._injector = injector
        self._engine = engine
        self._deadline = time.monotonic() + limit_seconds

    async def until_at_rest(self) -> None:
        """Return when nothing carries the release on any more, or after the limit with a word about it."""
        due_at = time.monotonic() + INTERVAL_SECONDS
        quiet = 0
        while time.monotonic() < self._deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            abandoned = not self._world.controllers()
            state = await self._state()
            if state is not None and abandoned and state.phase in ENDED:
                return
            if self._world.timer_stopped or (time.monotonic() < due_at and not abandoned):
                continue
            started = await self._carry_on()
            due_at = time.monotonic() + INTERVAL_SECONDS
            resting = (
                abandoned
                and state is not None
                and not started
                and not state.is_locked
                and not self._injector.active
                and not self._world.controllers()
                and state == await self._state()
            )
            quiet = quiet + 1 if resting else 0
            if quiet >= _QUIET_RUNS:
                return
        self._world.wrong.append("the release did not come to rest in time")

    async def _state(self) -> _State | None:
        """The state of the release; None while the database is away."""
        try:
            async with self._engine.connect() as connection:
                row = (await connection.execute(SQL["state"], {"release_id": self._world.release_id})).one()
        except DRIVER_ERRORS:
            return None
        return _State(phase=Phase(row.phase), is_locked=row.is_locked)

    async def _carry_on(self) -> bool:
        """Run the command as the timer does; whether it has started a controller. It waits for what is due soon."""
        where = ("-e", str(self._world.target.environment_path))
        done = await runbook("resume", "--due", *where, "--detach", "--json", variables=self._world.variables)
        return any(one.get("due") for one in done.json.get("environments", []))
