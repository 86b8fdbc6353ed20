"""Healing, every 15 minutes: events back from dead workers, old dead letters back in growing batches, and alarms.

A run is short. Where a batch is out at its end, or it is killed, the next run judges it. Two runs at once are harmless:
the claim in the ledger lets one of them heal, and fences the other one off.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.errors import LEDGER_AWAY, ExitCode
from handlers.measurements.measurement import Measurement
from handlers.phases import heal_alarms, heal_batch, heal_blocks, heal_leases, heal_letters
from handlers.phases.heal_batch import Judged, named
from handlers.phases.heal_blocks import Block
from handlers.release.controller import controller_name
from handlers.release.ledger import heals, outbox
from handlers.release.ledger.heals import Claim, Out
from handlers.release.topic import Topic

log = logging.getLogger(__name__)

BESIDES_SECONDS = 180.0
"""The claim lasts so much longer than a run sends and follows batches: for leases, alarms, and a slow database."""
BATCHES_MAX = 50
"""So many batches one run sends at most."""


@dataclass(frozen=True, kw_only=True)
class Healed:
    """What came of one run."""

    environment: str
    taken_back: str = ""
    """Which events came back from dead workers; empty when none did."""
    batches: tuple[Judged, ...] = ()
    out: int = 0
    """Letters that are out at the end of the run; the next one judges them."""
    block: Block | None = None
    """Why no dead letter goes back now."""
    alarms: tuple[Measurement, ...] = ()
    """The alarms that are broken, or could not be read."""
    idle: str = ""
    """Why nothing was done at all."""

    @property
    def did_something(self) -> bool:
        """Whether anything was healed, or tried."""
        return bool(self.taken_back or self.batches)

    @property
    def exit_code(self) -> ExitCode:
        """HELD when something is wrong that healing could not mend."""
        rests = any(each.rests for each in self.batches)
        is_blocked = self.block is not None and self.block.is_wrong
        return ExitCode.HELD if self.alarms or rests or is_blocked else ExitCode.GOOD

    @property
    def healed(self) -> str:
        """What was healed, for people; empty when nothing was."""
        words = [self.taken_back] if self.taken_back else []
        if self.batches:
            tried, completed = (
                sum(getattr(each, name) for each in self.batches) for name in ("tried", "completed")
            )
            words.append(f"{completed} of {tried} dead letters completed")
        return ", ".join(words)

    @property
    def sentence(self) -> str:
        """The whole run in one line."""
        if self.idle:
            return self.idle
        words = [self.healed] if self.healed else []
        words += [f"{self.out} dead letters are out, the next run judges them"] if self.out else []
        words += [f"{named(each.rests)} rests: {each.sentence}" for each in self.batches if each.rests]
        words += [f"no dead letter goes back: {self.block.sentence}"] if self.block else []
        words += [f"{each.key}: {each.sentence}" for each in self.alarms]
        return "; ".join(words) or "nothing to heal"


@dataclass
class _Letters:
    """What came of the dead letters of a run."""

    judged: list[Judged] = field(default_factory=list)
    block: Block | None = None


async def run(core: Core) -> Healed:
    """Heal once. Raises DatabaseDown when the database goes away meanwhile: then the next run goes on."""
    name, settings = core.environment.name, core.environment.heal
    if not settings.active:
        return Healed(environment=name, idle="healing is switched off: heal.active is false")
    by = f"{controller_name()}-{secrets.token_hex(4)}"
    claim = await heals.claim(core.database, name, by=by, seconds=settings.run_seconds + BESIDES_SECONDS)
    if claim is None:
        return Healed(environment=name, idle="another run heals it now")
    sentence = ""
    try:
        healed = await _run(core, claim)
        sentence = healed.sentence
        return healed
    finally:
        # Where the database is away, the claim ends by itself.
        with contextlib.suppress(*LEDGER_AWAY):
            await heals.free(core.database, claim, sentence=sentence)


async def _run(core: Core, claim: Claim) -> Healed:
    name = core.environment.name
    deadline = monotonic() + core.environment.heal.run_seconds
    taken_back = await heal_leases.take_back(core, claim)
    letters = await _letters(core, claim, deadline)
    measured = await heal_alarms.measure(core)
    out = await heals.out(core.database, name)
    healed = Healed(
        environment=name,
        taken_back=taken_back.sentence,
        batches=tuple(letters.judged),
        out=out.events if out is not None else 0,
        block=letters.block,
        alarms=tuple(heal_alarms.wrong(measured)),
    )
    await _tell(core, healed, measured)
    return healed


async def _letters(core: Core, claim: Claim, deadline: float) -> _Letters:
    """Judge the batch that is out, and send others while there is time: each is judged before the next one goes."""
    done = _Letters()
    for _ in range(BATCHES_MAX):
        out = await heals.out(core.database, core.environment.name)
        out = out or await _sent(core, claim, deadline, done)
        judged = await _judged(core, claim, deadline, done, out) if out is not None else None
        if judged is None:
            break
        done.judged.append(judged)
        if judged.untaken:
            # They would go back again and again.
            sentence = f"workers have not taken {judged.untaken} of {judged.tried} letters in all their time"
            done.block = Block(sentence=sentence, is_wrong=True)
            break
    return done


async def _sent(core: Core, claim: Claim, deadline: float, done: _Letters) -> Out | None:
    """The next batch, where one may go back in this run."""
    if not core.environment.heal.dead_letters or monotonic() >= deadline:
        return None
    if not await _is_one_due(core):
        await heal_batch.end_round(core, claim)
        return None
    done.block = await heal_blocks.find(core)
    return await heal_batch.send(core, claim) if done.block is None else None


async def _judged(core: Core, claim: Claim, deadline: float, done: _Letters, out: Out) -> Judged | None:
    """What came of a batch; None where it is still out, or was called back."""
    # While the upstream is away, or nobody works, a failure says nothing about a letter.
    done.block = (
        await heal_blocks.find(core)
        or await heal_batch.follow(core, out, deadline)
        or await heal_blocks.find(core)
    )
    if done.block is not None:
        await heal_batch.call_back(core, claim, out, done.block.sentence)
        return None
    now = await heals.out(core.database, core.environment.name)
    return await heal_batch.judge(core, claim, now) if now is not None else None


async def _is_one_due(core: Core) -> bool:
    """Whether a letter may go back now. Without one nothing is asked, and nothing is in the way."""
    async with transaction(core.database) as tx:
        return await heal_letters.is_one_due(tx, core, core.environment.name)


async def _tell(core: Core, healed: Healed, measured: Sequence[Measurement]) -> None:
    """Tell people what was healed, and of the alarms; the end of a batch was told with it."""
    if healed.healed:
        log.info("%s: %s", healed.environment, healed.healed)
        await outbox.write(core.database, healed.environment, Topic.HEALED, healed.healed)
    await heal_alarms.tell(core, measured)
