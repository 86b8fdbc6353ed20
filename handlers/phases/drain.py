"""The drain: it redrives exactly the planned dead letters, first one of each type, then growing batches."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.gate.rules import judge_batch
from handlers.gate.values import Finding, Measurement
from handlers.phases.follow import until_settled
from handlers.phases.measure import concluded, drain_counts, thresholds
from handlers.queue import look
from handlers.queue.redrive import BeforeRedrive, redrive, restore
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.ledger.dead_letters import Batch, ReleaseEvent
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict


async def next_batch(core: Core, release: Release) -> int | None:
    """Redrive the next batch and return its number; None when no planned dead letter is left.

    After a restart, the batch that has not settled comes first. Planned events that are not dead letters now were
    redriven elsewhere and are skipped.
    """
    batches = await dead_letters.batches(core.database, release)
    for batch in batches:
        if batch.number > 0 and batch.settled_at is None:
            return batch.number
    async with transaction(core.database) as tx:
        undrained = await dead_letters.undrained(tx, release)
        dead_ids = {letter.id for letter in await look.dead_letters(tx)}
        available = [event for event in undrained if event.event_id in dead_ids]
        if not available:
            return None
        chosen = _choose(available, batches, core.environment.drain.batch_factor)
        previous_values = await redrive(
            tx, [event.event_id for event in chosen[: core.environment.drain.batch_size_max]]
        )
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
    judgement = judge_batch(
        Measurement(
            counts=drain_counts(await dead_letters.events(core.database, release), states),
            baseline=(await releases.plan(core.database, release.id)).baseline,
        ),
        thresholds(core.environment),
    )
    await records.record_judgement(core.database, release, judgement)
    await dead_letters.settle_batch(
        core.database, release, number, states=states, finding=judgement.finding, sentence=judgement.sentence
    )
    return concluded(judgement, PhaseNote(batch=number))


async def conclude(core: Core, release: Release) -> Conclusion:
    """Judge the whole drain once no planned dead letter is left."""
    events = await dead_letters.events(core.database, release)
    drained = [event for event in events if event.batch is not None]
    if not drained:
        return Conclusion(verdict=Verdict.PASS, sentence="no dead letter to drain")
    judgement = judge_batch(
        Measurement(
            counts=drain_counts(events), baseline=(await releases.plan(core.database, release.id)).baseline
        ),
        thresholds(core.environment),
    )
    sizes = " ".join(
        str(batch.size) for batch in await dead_letters.batches(core.database, release) if batch.number > 0
    )
    conclusion = concluded(judgement)
    return Conclusion(
        verdict=conclusion.verdict,
        sentence=f"{conclusion.sentence}; batches {sizes}" if sizes else conclusion.sentence,
        note=PhaseNote(drained=len(drained), left=len(events) - len(drained)),
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


def _choose(available: list[ReleaseEvent], batches: list[Batch], factor: int) -> list[ReleaseEvent]:
    """First one event of each type: success of one type proves nothing about another. After a healthy batch the
    next is *factor* times as large.
    """
    drains = [batch for batch in batches if batch.number > 0]
    if not drains:
        first: dict[str, ReleaseEvent] = {}
        for event in available:
            first.setdefault(event.entity_type, event)
        return list(first.values())
    last = drains[-1]
    size = last.size * factor if last.finding is Finding.HEALTHY else last.size
    return available[:size]
