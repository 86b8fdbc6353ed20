"""The drain: it redrives exactly the planned dead letters, first one of each type, then growing batches.

What fails again is set aside: the other letters of that type or error stay dead letters, and the drain goes on.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.gate.drain_rules import judge_drain
from handlers.gate.letters import DrainMeasurement
from handlers.gate.staged import set_aside
from handlers.phases.follow import until_settled
from handlers.phases.measure import concluded, drain_limits
from handlers.phases.replays import Chosen, Progress, next_letters, progress
from handlers.queue import look
from handlers.queue.event import SETTLED
from handlers.queue.look import EventState
from handlers.queue.redrive import BeforeRedrive, redrive, restore
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict


async def next_batch(core: Core, release: Release) -> int | None:
    """Redrive the next batch and return its number; None when no planned dead letter is left or all are set aside.

    After a restart, the batch that has not settled comes first. Planned events that are not dead letters now were
    redriven elsewhere and are skipped.
    """
    batches = await dead_letters.batches(core.database, release)
    for batch in batches:
        if batch.number > 0 and batch.settled_at is None:
            return batch.number
    async with transaction(core.database) as tx:
        chosen = await _choose(core, tx, await progress(tx, release))
        if not chosen.letters:
            return None
        previous_values = await redrive(tx, [UUID(letter.id) for letter in chosen.letters])
        number = max((batch.number for batch in batches), default=0) + 1
        await dead_letters.record_batch(tx, release, number, previous_values)
    return number


async def settle(core: Core, release: Release, number: int) -> Conclusion:
    """Wait until the batch has settled or its time limit has passed, and judge the whole drain so far."""
    events = [event for event in await dead_letters.events(core.database, release) if event.batch == number]
    limits = core.environment.drain
    states = await until_settled(
        core,
        [event.event_id for event in events],
        limit_seconds=limits.settle_seconds,
        poll_seconds=limits.poll_seconds,
        revision=release.to_revision,
    )
    await _settle_late(core, release)
    async with transaction(core.database) as tx:
        measurement = (await progress(tx, release, judged=number, states=states)).measurement()
    judgement = judge_drain(measurement, drain_limits(core.environment))
    await records.record_judgement(core.database, release, judgement)
    await dead_letters.settle_batch(
        core.database, release, number, states=states, finding=judgement.finding, sentence=judgement.sentence
    )
    note = PhaseNote(batch=number, set_aside=_reasons(core, measurement))
    await releases.note(
        core.database, release, PhaseNote(looked=judgement.sentence, set_aside=note.set_aside)
    )
    return concluded(judgement, note)


async def conclude(core: Core, release: Release) -> Conclusion:
    """Judge the whole drain once no planned dead letter is left that may be redriven."""
    await _settle_late(core, release)
    async with transaction(core.database) as tx:
        so_far = await progress(tx, release)
        orphaned = (await _choose(core, tx, so_far)).orphaned
    events = await dead_letters.events(core.database, release)
    left = sum(event.batch is None for event in events)
    if left == len(events):
        return Conclusion(verdict=Verdict.PASS, sentence="no dead letter to drain")
    measurement = so_far.measurement(orphaned)
    conclusion = concluded(judge_drain(measurement, drain_limits(core.environment)))
    batches = sum(batch.number > 0 for batch in so_far.batches)
    return Conclusion(
        verdict=conclusion.verdict,
        sentence=f"{conclusion.sentence}; {batches} batches" if batches else conclusion.sentence,
        note=PhaseNote(drained=len(events) - left, left=left, set_aside=_reasons(core, measurement)),
    )


async def restore_unsettled(core: Core, release: Release, *, leased_before: datetime | None = None) -> int:
    """Restore redriven events that have not settled: dead letters again, with their previous attempts and error.

    Of the leased events only those are included that were leased before *leased_before*, by workers that are gone.
    Returns the number of restored events.
    """
    async with transaction(core.database) as tx:
        open_events = await dead_letters.unsettled(tx, release)
        previous_values = [BeforeRedrive(**event.former) for event in open_events if event.former]
        restored: list[UUID] = await restore(tx, previous_values, leased_before=leased_before)
        return await dead_letters.mark_returned(tx, release, restored)


async def _choose(core: Core, tx: AsyncConnection, so_far: Progress) -> Chosen:
    """The letters of the next batch."""
    settings = core.environment.drain
    return await next_letters(
        tx,
        so_far,
        drain_limits(core.environment),
        factor=settings.batch_factor,
        size_max=settings.batch_size_max,
    )


def _reasons(core: Core, measurement: DrainMeasurement) -> dict[str, int]:
    """How many letters are set aside, by reason."""
    found = set_aside(measurement.groups, drain_limits(core.environment))
    return {each.reason: each.letters for each in found}


async def _settle_late(core: Core, release: Release) -> None:
    """Record the end of letters that were still open when their batch was judged."""
    events = await dead_letters.events(core.database, release)
    for batch in await dead_letters.batches(core.database, release):
        late = [event for event in events if event.batch == batch.number and event.settled_at is None]
        if batch.settled_at is None or not late or batch.finding is None:
            continue
        async with transaction(core.database) as tx:
            ids = [event.event_id for event in events if event.batch == batch.number]
            states: list[EventState] = await look.states(tx, ids)
        if any(
            state.status in SETTLED and state.id in {event.event_id for event in late} for state in states
        ):
            await dead_letters.settle_batch(
                core.database,
                release,
                batch.number,
                states=states,
                finding=batch.finding,
                sentence=batch.sentence,
            )
