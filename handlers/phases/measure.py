"""From the queue's and the ledger's numbers to the gate's, and from its finding to a phase's conclusion."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.environment.model import Environment
from handlers.gate.values import Count, Finding, Judgement, Thresholds
from handlers.queue.event import SETTLED, Status
from handlers.queue.look import EventState, OutcomeCount
from handlers.release.ledger.dead_letters import ReleaseEvent
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Verdict

ERROR_SAMPLES_MAX = 5


def thresholds(environment: Environment) -> Thresholds:
    """The environment's bars, as the gate takes them."""
    return Thresholds(**environment.gate.model_dump())


def of_replays(events: Sequence[ReleaseEvent], fresh: Sequence[EventState] = ()) -> tuple[Count, ...]:
    """The drain so far, a count for each type. *fresh* is how the batch in hand stands now that its time is over:
    what is still open there is late.
    """
    now = {state.id: state for state in fresh}
    counts = []
    for entity in sorted({event.entity_type for event in events if event.batch is not None}):
        ends = [_end(event, now.get(event.event_id)) for event in events if event.entity_type == entity]
        counts.append(
            Count(
                entity=entity,
                completed=sum(status == Status.COMPLETED for status, _ in ends),
                failed=sum(status in (Status.DEAD_LETTER, Status.FAILED) for status, _ in ends),
                late=sum(status == "late" for status, _ in ends),
                errors=tuple(error for _, error in ends if error)[:ERROR_SAMPLES_MAX],
            )
        )
    return tuple(counts)


def of_traffic(counted: Sequence[OutcomeCount]) -> tuple[Count, ...]:
    """Live traffic, a count for each type."""
    return tuple(
        Count(
            entity=each.entity or each.raw_type,
            completed=each.completed,
            failed=each.failed,
            open=each.open,
            late=each.late,
            errors=each.error_samples[:ERROR_SAMPLES_MAX],
        )
        for each in counted
    )


def concluded(judgement: Judgement, note: PhaseNote | None = None) -> Conclusion:
    """Only HEALTHY passes and only UNHEALTHY fails; whatever could not be told is inconclusive."""
    verdict = {Finding.HEALTHY: Verdict.PASS, Finding.UNHEALTHY: Verdict.FAIL}.get(
        judgement.finding, Verdict.INCONCLUSIVE
    )
    return Conclusion(verdict=verdict, sentence=judgement.sentence, note=note or PhaseNote())


def _end(event: ReleaseEvent, state: EventState | None) -> tuple[str, str | None]:
    if state is not None:
        return (state.status, state.error_message) if state.status in SETTLED else ("late", None)
    return (event.status or "", event.error) if event.settled_at else ("", None)
