"""The end of a sync: what it has done, in a sentence, and the exit code for schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handlers.core import Core
from handlers.errors import ExitCode, RunbookError
from handlers.queue.event import EntityType
from handlers.zoho import progress, runs
from handlers.zoho.listings import LISTINGS
from handlers.zoho.progress import Stage, Step
from handlers.zoho.replies import DayIsOver
from handlers.zoho.runs import Kind, Run, State, TakenOver


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a sync."""

    environment: str
    kind: Kind
    run: int
    state: State
    exit_code: ExitCode
    sentence: str
    steps: tuple[Step, ...]


def entities_of(kind: Kind, wanted: Sequence[EntityType] = ()) -> tuple[EntityType, ...]:
    """What a sync reads, parents before children: so few events wait for their parent."""
    if kind is Kind.STOCK:
        return (EntityType.PRODUCT,)
    return tuple(entity for entity in LISTINGS if not wanted or entity in wanted)


async def finish(core: Core, run: Run) -> Outcome:
    """Record that every entity type was read to its end."""
    steps = await progress.steps(core.database, run.id)
    doubts = [step.sentence for step in steps if step.sentence]
    sentence = _counts(steps) + "".join(f"; {doubt}" for doubt in doubts[:3])
    await runs.settle(core.database, run, State.DONE, sentence)
    code = ExitCode.HELD if doubts else ExitCode.GOOD
    return _outcome(run, State.DONE, code, sentence, steps)


async def stop(core: Core, run: Run, error: RunbookError) -> Outcome:
    """Record that a sync stopped, and why. It goes on where it was."""
    steps = await progress.steps(core.database, run.id)
    waits = error.seconds if isinstance(error, DayIsOver) else 0.0
    state = State.WAITING if waits else State.STOPPED
    sentence = f"{error}. So far: {_counts(steps)}"
    if not isinstance(error, TakenOver):
        await runs.settle(core.database, run, state, sentence, wait_seconds=waits)
    return _outcome(run, state, error.exit_code, sentence, steps)


def _outcome(run: Run, state: State, code: ExitCode, sentence: str, steps: Sequence[Step]) -> Outcome:
    order = {entity: at for at, entity in enumerate(run.entities)}
    return Outcome(
        environment=run.environment,
        kind=run.kind,
        run=run.id,
        state=state,
        exit_code=code,
        sentence=sentence,
        steps=tuple(sorted(steps, key=lambda step: order.get(step.entity, 0))),
    )


def _counts(steps: Sequence[Step]) -> str:
    done = sum(step.stage is Stage.DONE for step in steps)
    listed, queued, deleted = (
        sum(getattr(step, name) for step in steps) for name in ("listed", "queued", "deleted")
    )
    unreadable = sum(step.unreadable for step in steps)
    kinds = f"{done} entity types" if done != 1 else "1 entity type"
    told = f"{kinds} read, {listed} records found, {queued} changes queued, {deleted} of them deletes"
    return told + (f", {unreadable} not readable" if unreadable else "")
