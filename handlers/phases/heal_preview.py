"""What healing would do now, to which events, and who would do it. Nothing is changed, not even the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from handlers.core import Core
from handlers.database import clock
from handlers.database.transaction import transaction
from handlers.errors import ExitCode
from handlers.gate.heal_rules import Standing
from handlers.measurements.measurement import Measurement
from handlers.phases import heal_alarms, heal_blocks, heal_leases
from handlers.phases.heal_blocks import Block
from handlers.phases.heal_letters import next_of, read_round
from handlers.queue.look import EventState
from handlers.release.ledger import heals
from handlers.release.ledger.heals import Out

WORKER = "a worker's housekeeping"
HEALING = "healing"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One event: what would be done to it, and by whom."""

    id: str
    entity: str
    key: str
    code: str
    error: str
    age_seconds: float | None
    """Since its last attempt."""
    tries: int
    """By healing, so far."""
    who: str
    what: str
    """What is done, or why nothing is."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a run would do now."""

    environment: str
    idle: str
    """Why it would do nothing at all; empty when it would look."""
    block: Block | None
    """Why no dead letter goes back now."""
    out: Out | None
    """The batch that is out: the next run judges it."""
    taken_back: tuple[Line, ...]
    next: tuple[Line, ...]
    """The letters of the next batch."""
    letters: tuple[Line, ...]
    """Every dead letter, and who sees to it."""
    alarms: tuple[Measurement, ...]
    """What people would be told of, if they were not told before."""

    @property
    def by_reason(self) -> list[tuple[str, str, int]]:
        """How many dead letters somebody sees to for one reason: who, why, how many."""
        counts = Counter((line.who, line.what) for line in self.letters)
        return [(who, what, number) for (who, what), number in counts.most_common()]

    @property
    def exit_code(self) -> ExitCode:
        """HELD when something is wrong that healing cannot mend."""
        is_blocked = self.block is not None and self.block.is_wrong
        return ExitCode.HELD if self.alarms or is_blocked else ExitCode.GOOD


async def preview(core: Core) -> Preview:
    """What a run would do now. Raises DatabaseDown."""
    name, settings = core.environment.name, core.environment.heal
    state = await heals.state(core.database, name)
    idle = "" if settings.active else "healing is switched off: heal.active is false"
    if state.claimed_by:
        idle = f"{state.claimed_by} heals it now"
    block = await heal_blocks.find(core)
    out = await heals.out(core.database, name)
    lost = await heal_leases.would_take_back(core)
    async with transaction(core.database) as tx:
        at = await clock.now(tx)
        lives = await heal_blocks.lives_a_worker(tx)
        so_far = await read_round(tx, core, name, state.round, everything=True)
        may_send = settings.active and settings.dead_letters and block is None and out is None
        chosen = (await next_of(tx, core, so_far)).letters if may_send else ()
    by_id = {each.letter.id: each for each in so_far.standings}
    by = WORKER if lives else HEALING
    measured = await heal_alarms.measure(core)
    return Preview(
        environment=name,
        idle=idle,
        block=block,
        out=out,
        taken_back=(
            *_of_states(lost.lost, at, by, "back to the queue: no worker has it"),
            *_of_states(lost.woken, at, by, "due now: its parents have come"),
        ),
        next=tuple(_of(by_id[letter.id]) for letter in chosen),
        letters=tuple(map(_of, so_far.standings)),
        alarms=tuple(heal_alarms.wrong(measured)),
    )


def _of(found: Standing) -> Line:
    letter = found.letter
    return Line(
        id=letter.id,
        entity=letter.entity or letter.raw_type,
        key=letter.key,
        code=letter.code,
        error=letter.former,
        age_seconds=letter.dead_seconds,
        tries=letter.tries,
        who=found.who,
        what=found.reason,
    )


def _of_states(states: Iterable[EventState], at: datetime, who: str, what: str) -> list[Line]:
    return [
        Line(
            id=str(state.id),
            entity=state.entity or state.raw_type,
            key=state.key,
            code=state.error_code or "",
            error="",
            age_seconds=(at - state.started_at).total_seconds() if state.started_at else None,
            tries=0,
            who=who,
            what=what,
        )
        for state in states
    ]
