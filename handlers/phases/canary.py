"""The canary: one event for the deployed workers, followed until it settles and compared with its row."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.entities.compare import differences, uncomparable
from handlers.errors import Refused
from handlers.gate.rules import judge_canary
from handlers.gate.values import CanaryMeasurement
from handlers.phases import synthetic
from handlers.phases.follow import until_settled
from handlers.phases.measure import concluded, thresholds
from handlers.queue import look
from handlers.queue.event import Status
from handlers.queue.look import EventState
from handlers.queue.redrive import redrive
from handlers.release.ledger import dead_letters, releases
from handlers.release.ledger.records import record_judgement
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release, Verdict
from handlers.release.planned import canary_of, planned_event

BATCH = 0
"""The canary is the release's batch 0; the drain counts from 1."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The event that proves the revision, or the conclusion when there is no such event."""

    event_id: UUID | None = None
    is_synthetic: bool = False
    conclusion: Conclusion | None = None


async def choose(core: Core, release: Release) -> Chosen:
    """Choose the canary: the one sent before a restart, otherwise a dead letter, otherwise a synthetic event.

    With failed events but no dead letter the release is held: a person must check these events before they are
    redriven (scenario C). With neither, the workers get a synthetic event (scenario B).
    """
    if (sent := await _already_sent(core, release)) is not None:
        return sent
    async with transaction(core.database) as tx:
        dead = {letter.id: letter for letter in await look.dead_letters(tx)}
        counts = await look.counts(tx)
    came_at = {id_: letter.created_at for id_, letter in dead.items()}
    planned = tuple(
        planned_event(dead[event.event_id])
        for event in await dead_letters.undrained(core.database, release)
        if event.event_id in dead
    )
    if (best := canary_of(planned, came_at)) is not None:
        return Chosen(event_id=UUID(best.id))
    if counts[Status.FAILED]:
        return Chosen(conclusion=await _only_failed(core, release, counts[Status.FAILED]))
    return Chosen(is_synthetic=True)


async def send(core: Core, release: Release, chosen: Chosen) -> Chosen:
    """Send the canary to the workers and record it, in one transaction. A second call does nothing.

    Raises Refused when the event is not a dead letter any more.
    """
    if await _already_sent(core, release) is not None:
        return chosen
    async with transaction(core.database) as tx:
        if chosen.is_synthetic:
            event_id = await synthetic.insert(tx, release.id)
            await releases.note(tx, release, PhaseNote(synthetic_event=event_id))
            return Chosen(event_id=event_id, is_synthetic=True)
        assert chosen.event_id is not None
        previous_values = await redrive(tx, [chosen.event_id])
        if not previous_values:
            raise Refused(f"event {chosen.event_id} is not a dead letter now: it was redriven elsewhere")
        await dead_letters.record_batch(tx, release, BATCH, previous_values)
    return chosen


async def follow(core: Core, release: Release, chosen: Chosen) -> Conclusion:
    """Wait until the canary has settled or its time limit has passed, judge it, and record the judgement."""
    assert chosen.event_id is not None
    limits = core.environment.canary
    began = monotonic()
    states = await until_settled(
        core,
        [chosen.event_id],
        limit_seconds=limits.limit_seconds,
        poll_seconds=limits.poll_seconds,
        revision=release.to_revision,
    )
    if not states:
        raise Refused(f"event {chosen.event_id}, the canary, was deleted from the queue")
    measurement = await _measure(core, release, states[0], followed_seconds=monotonic() - began)
    judgement = judge_canary(measurement, thresholds(core.environment))
    await record_judgement(core.database, release, judgement)
    if chosen.is_synthetic:
        async with transaction(core.database) as tx:
            await synthetic.remove(tx, release.id)
    else:
        await dead_letters.settle_batch(
            core.database,
            release,
            BATCH,
            states=states,
            finding=judgement.finding,
            sentence=judgement.sentence,
        )
    conclusion = concluded(judgement, PhaseNote(event=chosen.event_id, synthetic=chosen.is_synthetic))
    if chosen.is_synthetic:
        return Conclusion(
            verdict=conclusion.verdict,
            sentence=f"no dead letter for the canary, so a synthetic event: {conclusion.sentence}",
            note=conclusion.note,
        )
    return conclusion


async def _already_sent(core: Core, release: Release) -> Chosen | None:
    batches = await dead_letters.batches(core.database, release)
    if any(batch.number == BATCH for batch in batches):
        events = await dead_letters.events(core.database, release)
        return Chosen(event_id=next(event.event_id for event in events if event.batch == BATCH))
    records = await releases.phase_records(core.database, release)
    sent = [event for record in records if (event := record.note.synthetic_event) is not None]
    return Chosen(event_id=sent[-1], is_synthetic=True) if sent else None


async def _only_failed(core: Core, release: Release, count: int) -> Conclusion:
    kinds = (await releases.plan(core.database, release.id)).failed
    what = "; ".join(f"{number} {kind}" for kind, number in kinds.items()) or f"{count} events"
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE,
        sentence=f"no dead letter for the canary, only {count} events in status failed ({what}); check them, then "
        "`runbook resume` or `runbook rollback`",
        note=PhaseNote(failed=kinds),
    )


async def _measure(
    core: Core, release: Release, state: EventState, *, followed_seconds: float
) -> CanaryMeasurement:
    status = {Status.COMPLETED: "completed", Status.DEAD_LETTER: "failed", Status.FAILED: "failed"}
    result = state.processing_result or {}
    revision = result.get("revision")
    limit = core.environment.canary.limit_seconds
    is_open = state.status not in status
    by_us = isinstance(revision, str)
    row_differences, not_compared = await _compare_row(core, state, by_us=by_us)
    return CanaryMeasurement(
        entity=state.entity or state.raw_type,
        key=state.key,
        status=status.get(state.status, "open"),
        # An open event has used its whole time limit, also when a worker started it late.
        seconds=limit if is_open else _seconds(state, followed_seconds),
        limit_seconds=limit,
        wanted_revision=release.to_revision,
        worker_revision=revision if isinstance(revision, str) else None,
        differences=row_differences,
        not_compared=not_compared,
        error=state.error_message or "",
    )


def _seconds(state: EventState, followed_seconds: float) -> float:
    """How long the event took. A worker writes both times by one clock; without them it is how long we followed it."""
    if state.started_at is None or state.completed_at is None or state.completed_at < state.started_at:
        return followed_seconds
    return (state.completed_at - state.started_at).total_seconds()


async def _compare_row(core: Core, state: EventState, *, by_us: bool) -> tuple[tuple[str, ...], str]:
    """The differences between the row and the payload, and why a row by the ERP's own worker was not compared."""
    if (
        state.status is not Status.COMPLETED
        or state.entity is None
        or not core.environment.canary.compare_row
    ):
        return (), ""
    async with transaction(core.database) as tx:
        event = (await look.payloads(tx, [state.id]))[state.id]
        why = None if by_us else await uncomparable(tx, state.entity, state.key, event.payload)
        if why is not None:
            return (), why
        found = await differences(
            tx, state.entity, state.key, event.payload, read_at=event.created_at, by_us=by_us
        )
        return tuple(found), ""
