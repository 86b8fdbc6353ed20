"""The drain: exactly the planned dead letters, one of each type first, then growing batches."""

from __future__ import annotations

from uuid import UUID

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.gate.rules import judge_batch
from handlers.gate.values import Finding, Measurement
from handlers.phases.follow import until_settled
from handlers.phases.measure import concluded, of_replays, thresholds
from handlers.queue import look
from handlers.queue.redrive import BeforeRedrive, redrive, restore
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.ledger.dead_letters import Batch, ReleaseEvent
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict


async def next_batch(core: Core, release: Release) -> int | None:
    """Redrive the next batch and return its number; an unsettled one from before a restart comes first.

    None when no planned dead letter is left. Events that are no longer dead letters are left alone: somebody
    else has redriven them, and they are theirs.
    """
    batches = await dead_letters.batches(core.database, release)
    for batch in batches:
        if batch.number > 0 and batch.settled_at is None:
            return batch.number
    async with transaction(core.database) as tx:
        waiting = await dead_letters.undrained(tx, release)
        still_dead = {letter.id for letter in await look.dead_letters(tx)}
        there = [event for event in waiting if event.event_id in still_dead]
        if not there:
            return None
        chosen = _choose(there, batches, core.environment.drain.batch_factor)
        formers = await redrive(
            tx, [event.event_id for event in chosen[: core.environment.drain.batch_size_max]]
        )
        number = max((batch.number for batch in batches), default=0) + 1
        await dead_letters.record_batch(tx, release, number, formers)
    return number


async def settle(core: Core, release: Release, number: int) -> Conclusion:
    """Wait until the batch has come to rest or its time is over, and judge the whole drain so far."""
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
            counts=of_replays(await dead_letters.events(core.database, release), states),
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
    """What the whole drain came to, when no planned dead letter is left to send back."""
    events = await dead_letters.events(core.database, release)
    drained = [event for event in events if event.batch is not None]
    if not drained:
        return Conclusion(verdict=Verdict.PASS, sentence="no dead letter to drain")
    judgement = judge_batch(
        Measurement(
            counts=of_replays(events), baseline=(await releases.plan(core.database, release.id)).baseline
        ),
        thresholds(core.environment),
    )
    sizes = " ".join(
        str(batch.size) for batch in await dead_letters.batches(core.database, release) if batch.number > 0
    )
    told = concluded(judgement)
    return Conclusion(
        verdict=told.verdict,
        sentence=f"{told.sentence}; batches {sizes}" if sizes else told.sentence,
        note=PhaseNote(drained=len(drained), left=len(events) - len(drained)),
    )


async def give_back(core: Core, release: Release, *, workers_stopped: bool) -> int:
    """Put what was sent back and has not come to rest where it was, with its former attempts and error.

    With all workers stopped a lease binds nobody any more. Returns how many were put back.
    """
    async with transaction(core.database) as tx:
        open_events = await dead_letters.unsettled(tx, release)
        formers = [BeforeRedrive(**event.former) for event in open_events if event.former]
        put_back: list[UUID] = await restore(tx, formers, even_leased=workers_stopped)
        return await dead_letters.mark_returned(tx, release, put_back)


def _choose(there: list[ReleaseEvent], batches: list[Batch], factor: int) -> list[ReleaseEvent]:
    """One of each type first: a canary of one type proves nothing about another. Then as many times more as
    *factor* says, but only after a healthy batch.
    """
    drains = [batch for batch in batches if batch.number > 0]
    if not drains:
        first: dict[str, ReleaseEvent] = {}
        for event in there:
            first.setdefault(event.entity_type, event)
        return list(first.values())
    last = drains[-1]
    size = last.size * factor if last.finding is Finding.HEALTHY else last.size
    return there[:size]
