"""The canary: one dead letter through the deployed workers, followed to its end and compared with its row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
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

NUMBER = 0
"""The canary is the release's batch 0; the drain counts from 1."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The one event that proves the revision, or the conclusion when there is none to be had."""

    event_id: UUID | None = None
    is_synthetic: bool = False
    conclusion: Conclusion | None = None


async def choose(core: Core, release: Release) -> Chosen:
    """The canary that was sent before a restart; else a dead letter; else a synthetic event; else nobody's guess.

    With no dead letter but failed events the release is held: they are not ours to redrive, and a person must
    see what they are (scenario C). With neither, a marked event goes through the workers (scenario B).
    """
    if (sent := await _sent_before(core, release)) is not None:
        return sent
    async with transaction(core.database) as tx:
        dead = {letter.id: letter for letter in await look.dead_letters(tx)}
        counts = await look.counts(tx)
    now = datetime.now(UTC)
    ages = {id_: (now - letter.created_at).total_seconds() for id_, letter in dead.items()}
    planned = tuple(
        planned_event(dead[event.event_id])
        for event in await dead_letters.undrained(core.database, release)
        if event.event_id in dead
    )
    if (best := canary_of(planned, ages)) is not None:
        return Chosen(event_id=UUID(best.id))
    if counts[Status.FAILED]:
        return Chosen(conclusion=await _only_failed(core, release, counts[Status.FAILED]))
    return Chosen(is_synthetic=True)


async def send(core: Core, release: Release, chosen: Chosen) -> Chosen:
    """Send it to the workers and write down that it was sent, in one transaction. Sent once is sent."""
    if await _sent_before(core, release) is not None:
        return chosen
    async with transaction(core.database) as tx:
        if chosen.is_synthetic:
            event_id = await synthetic.insert(tx, release.id)
            await releases.note(tx, release, PhaseNote(synthetic_event=event_id))
            return Chosen(event_id=event_id, is_synthetic=True)
        assert chosen.event_id is not None
        formers = await redrive(tx, [chosen.event_id])
        if not formers:
            raise Refused(
                f"event {chosen.event_id} is no longer a dead letter: somebody redrove it meanwhile"
            )
        await dead_letters.record_batch(tx, release, NUMBER, formers)
    return chosen


async def follow(core: Core, release: Release, chosen: Chosen) -> Conclusion:
    """Wait until it has come to rest or its limit has passed, judge it, and keep the judgement."""
    assert chosen.event_id is not None
    limits = core.environment.canary
    states = await until_settled(
        core,
        [chosen.event_id],
        limit_seconds=limits.limit_seconds,
        poll_seconds=limits.poll_seconds,
        revision=release.to_revision,
    )
    if not states:
        raise Refused(f"event {chosen.event_id} is gone from the queue: somebody deleted the canary")
    seen = await _seen(core, release, states[0])
    judgement = judge_canary(seen, thresholds(core.environment))
    await record_judgement(core.database, release, judgement)
    if chosen.is_synthetic:
        async with transaction(core.database) as tx:
            await synthetic.remove(tx, release.id)
    else:
        await dead_letters.settle_batch(
            core.database,
            release,
            NUMBER,
            states=states,
            finding=judgement.finding,
            sentence=judgement.sentence,
        )
    said = concluded(judgement, PhaseNote(event=chosen.event_id, synthetic=chosen.is_synthetic))
    if chosen.is_synthetic:
        return Conclusion(
            verdict=said.verdict,
            sentence=f"no dead letter to prove it on, so a synthetic event: {said.sentence}",
            note=said.note,
        )
    return said


async def _sent_before(core: Core, release: Release) -> Chosen | None:
    batches = await dead_letters.batches(core.database, release)
    if any(batch.number == NUMBER for batch in batches):
        events = await dead_letters.events(core.database, release)
        return Chosen(event_id=next(event.event_id for event in events if event.batch == NUMBER))
    records = await releases.phase_records(core.database, release)
    marked = [sent for record in records if (sent := record.note.synthetic_event) is not None]
    return Chosen(event_id=marked[-1], is_synthetic=True) if marked else None


async def _only_failed(core: Core, release: Release, count: int) -> Conclusion:
    kinds = (await releases.plan(core.database, release.id)).failed
    what = "; ".join(f"{number} {kind}" for kind, number in kinds.items()) or f"{count} events"
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE,
        sentence=f"nothing to prove it on: no dead letter, but {count} in status failed ({what}); a person must "
        "look at them, then resume or roll back",
        note=PhaseNote(failed=kinds),
    )


async def _seen(core: Core, release: Release, state: EventState) -> CanaryMeasurement:
    status = {Status.COMPLETED: "completed", Status.DEAD_LETTER: "failed", Status.FAILED: "failed"}
    result = state.processing_result or {}
    revision = result.get("revision")
    ended = state.completed_at or datetime.now(UTC)
    began = state.started_at or ended
    limit = core.environment.canary.limit_seconds
    is_open = state.status not in status
    by_us = isinstance(revision, str)
    said, unseen = await _row(core, state, by_us=by_us)
    return CanaryMeasurement(
        entity=state.entity or state.raw_type,
        key=state.key,
        status=status.get(state.status, "open"),
        # An open one has used its limit up, whenever a worker began with it.
        seconds=limit if is_open else max(0.0, (ended - began).total_seconds()),
        limit_seconds=limit,
        wanted_revision=release.to_revision,
        worker_revision=revision if isinstance(revision, str) else None,
        differences=said,
        not_compared=unseen,
        error=state.error_message or "",
    )


async def _row(core: Core, state: EventState, *, by_us: bool) -> tuple[tuple[str, ...], str]:
    """What its row says otherwise than its payload, and why the row of a worker of the ERP's own was not compared."""
    if (
        state.status is not Status.COMPLETED
        or state.entity is None
        or not core.environment.canary.compare_row
    ):
        return (), ""
    async with transaction(core.database) as tx:
        carried = (await look.payloads(tx, [state.id]))[state.id]
        why = None if by_us else await uncomparable(tx, state.entity, state.key, carried.payload)
        if why is not None:
            return (), why
        said = await differences(
            tx, state.entity, state.key, carried.payload, read_at=carried.created_at, by_us=by_us
        )
        return tuple(said), ""
