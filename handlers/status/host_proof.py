"""The proof of one host by its answers, as the last step of what is done there. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from handlers.release.ledger.releases import PhaseRecord
from handlers.release.note import HostNote, ReturnNote
from handlers.release.usual import UsualSteps
from handlers.status.view import HostStep, StepState

PROBE = "probe"


def probe(
    name: str, record: PhaseRecord, usual: UsualSteps, at: datetime, *, since: datetime
) -> HostStep | None:
    """The proof of a host, from its newest note; None where the phase has ended without one.

    A note from before *since* is about the process before.
    """
    note = (record.note.hosts or {}).get(name)
    usual_seconds = usual.seconds(record.phase, PROBE)
    if note is None or note.seen_at is None or note.seen_at < since:
        if record.finished_at is not None:
            return None
        return HostStep(
            step=PROBE,
            state=StepState.RUNNING,
            started_at=since,
            seconds=seconds_between(since, at),
            usual_seconds=usual_seconds,
            sentence="waits for its first answer",
        )
    proven = bool(note.ok) and note.in_a_row >= note.needed
    state = StepState.DONE if proven else StepState.RUNNING
    if not proven and record.finished_at is not None:
        state = StepState.FAILED
    ended = record.finished_at
    if proven:
        # It is looked at until all others are proven too.
        ended = since + timedelta(seconds=note.seconds) if note.seconds is not None else note.seen_at
    return HostStep(
        step=PROBE,
        state=state,
        started_at=since,
        finished_at=ended,
        seconds=seconds_between(since, ended or at),
        usual_seconds=usual_seconds,
        sentence=_answers(note),
    )


def back_probe(
    note: ReturnNote, record: PhaseRecord, usual: UsualSteps, since: datetime, at: datetime
) -> HostStep:
    """The proof of a host that went back: the ledger hears of it after each try."""
    is_told = note.seen_at is not None and note.seen_at >= since
    ended = note.seen_at if note.back else record.finished_at
    open_state = StepState.RUNNING if record.finished_at is None else StepState.FAILED
    return HostStep(
        step=PROBE,
        state=StepState.DONE if note.back else open_state,
        started_at=since,
        finished_at=ended,
        seconds=seconds_between(since, ended or at),
        usual_seconds=usual.seconds(record.phase, PROBE),
        sentence=note.sentence if is_told else "waits for good answers of the revision before",
    )


def seconds_between(since: datetime, until: datetime) -> float:
    """Real seconds, to a tenth."""
    return round(max(0.0, (until - since).total_seconds()), 1)


def _answers(note: HostNote) -> str:
    count = f"{min(note.in_a_row, note.needed)} of {note.needed} good answers in a row" if note.needed else ""
    if note.ok:
        return count
    return f"{count}: {note.note}" if count else note.note
