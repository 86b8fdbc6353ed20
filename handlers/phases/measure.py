"""Measurements for the gate from the queue and the ledger, and a phase's conclusion from the gate's finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from handlers.environment.model import Environment
from handlers.gate.values import Count, Finding, Judgement, Thresholds
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import SETTLED, Status
from handlers.queue.look import EventState, OutcomeCount
from handlers.release.ledger.dead_letters import ReleaseEvent
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Verdict

ERROR_SAMPLES_MAX = 5
KNOWN_SHARE_MAX = 0.2
"""An old error that more than this share of the records meets is not as it was: below 80 % is a breach."""


def thresholds(environment: Environment) -> Thresholds:
    """The environment's thresholds, as the gate takes them."""
    return Thresholds(**environment.gate.model_dump(exclude={"tolerable_percent"}))


def drain_counts(events: Sequence[ReleaseEvent], states: Sequence[EventState] = ()) -> tuple[Count, ...]:
    """The drain so far, one count for each type. *states* are the events of the current batch after its time limit:
    those that are still open are late.
    """
    states_by_id = {state.id: state for state in states}
    counts = []
    for entity in sorted({event.entity_type for event in events if event.batch is not None}):
        outcomes = [
            _outcome(event, states_by_id.get(event.event_id))
            for event in events
            if event.entity_type == entity
        ]
        counts.append(
            Count(
                entity=entity,
                completed=sum(status == Status.COMPLETED for status, _ in outcomes),
                failed=sum(status in (Status.DEAD_LETTER, Status.FAILED) for status, _ in outcomes),
                known=sum(status == "known" for status, _ in outcomes),
                late=sum(status == "late" for status, _ in outcomes),
                errors=tuple(error for _, error in outcomes if error)[:ERROR_SAMPLES_MAX],
                kinds=_kinds(events, entity, states_by_id),
            )
        )
    return tuple(counts)


def traffic_counts(counts: Sequence[OutcomeCount]) -> tuple[Count, ...]:
    """Live traffic, one count for each type.

    A failure with an error that the type had before the release is no evidence against it, unless there are too many.
    """
    known = sum(count.known for count in counts)
    settled = sum(count.completed + count.failed for count in counts)
    is_no_news = known <= KNOWN_SHARE_MAX * settled
    return tuple(
        Count(
            entity=count.entity or count.raw_type,
            completed=count.completed,
            failed=count.failed - (count.known if is_no_news else 0),
            known=count.known if is_no_news else 0,
            open=count.open,
            late=count.late,
            held=count.held,
            held_by=count.held_by,
            errors=count.error_samples[:ERROR_SAMPLES_MAX],
            kinds=count.error_kinds,
        )
        for count in counts
    )


def concluded(judgement: Judgement, note: PhaseNote | None = None) -> Conclusion:
    """The conclusion for a judgement: HEALTHY passes, UNHEALTHY fails, every other finding is inconclusive."""
    verdict = {Finding.HEALTHY: Verdict.PASS, Finding.UNHEALTHY: Verdict.FAIL}.get(
        judgement.finding, Verdict.INCONCLUSIVE
    )
    return Conclusion(verdict=verdict, sentence=judgement.sentence, note=note or PhaseNote())


def _kinds(events: Sequence[ReleaseEvent], entity: str, states: Mapping[UUID, EventState]) -> tuple[str, ...]:
    """The codes, and the beginnings of the texts, of every error in the drain, of events in retry too."""
    said: set[str] = set()
    for event in events:
        if event.entity_type == entity and event.batch is not None:
            state = states.get(event.event_id)
            if state is not None and state.status is not Status.COMPLETED:
                said |= {state.error_code or "", fingerprint(state.error_message or "")[:80]}
            elif event.settled_at and event.error:
                said.add(fingerprint(event.error)[:80])
    return tuple(sorted(said - {""}))


def _outcome(event: ReleaseEvent, state: EventState | None) -> tuple[str, str | None]:
    if state is not None:
        status, error = (state.status, state.error_message) if state.status in SETTLED else ("late", None)
    else:
        status, error = (event.status or "", event.error) if event.settled_at else ("", None)
    former = event.former.get("error_message")
    if error and former and status in (Status.DEAD_LETTER, Status.FAILED):
        return ("known" if fingerprint(error) == fingerprint(former) else status), error
    return status, error
