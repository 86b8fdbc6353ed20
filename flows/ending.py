"""The end of a release: its state on the Prefect page, and the signal that a process has finished its work."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from handlers.errors import ExitCode, RunbookError
from handlers.release.phase import Phase, Release, exit_code


@dataclass(kw_only=True)
class WorkDone:
    """Set once a process has finished its work on a release; only Prefect has not recorded it yet."""

    event: threading.Event = field(default_factory=threading.Event)
    exit_code: ExitCode = ExitCode.GOOD
    ended: bool = False
    """The work itself ended, successfully or not. Repeating it would start a second release or rollback."""
    error: RunbookError | None = None
    """The error that prevented the work; its text is one sentence."""


WORK_DONE = WorkDone()


@contextmanager
def work() -> Iterator[None]:
    """Set WORK_DONE, with the exit code, when the block ends. It encloses the work of one process on one release."""
    try:
        yield
        WORK_DONE.ended = True
    except RunbookError as error:
        WORK_DONE.error, WORK_DONE.exit_code = error, error.exit_code
        raise
    finally:
        WORK_DONE.event.set()


CANCELLED_ON_PAGE = "cancelled on the Prefect page"
"""The beginning of the sentence in the ledger, by which a person finds why a release was held or rolled back."""


_OVER = {Phase.REFUSED: "Refused", Phase.ABORTED: "Aborted"}
"""What ended before it did its work, and neither crashed nor failed."""


def as_state(run: Release) -> State[None]:
    """The Prefect state of a release: Completed, Failed, Cancelled, or one with a name of its own.

    A run that a person cancelled ends as Cancelled, with what became of the release.
    """
    if CANCELLED_ON_PAGE in run.reason:
        return Cancelled(message=f"{run.phase}: {run.reason}")
    if run.phase in _OVER:
        return Failed(name=_OVER[run.phase], message=run.reason)
    match exit_code(run.phase):
        case ExitCode.GOOD:
            return Completed(message=run.reason)
        case ExitCode.ROLLED_BACK:
            return Completed(name="RolledBack", message=run.reason)
        case ExitCode.HELD:
            return Completed(name="Held", message=run.reason)
        case _:
            return Failed(message=run.reason)


async def as_told(carry: Callable[[], Awaitable[Release]]) -> State[None]:
    """The state in which a run ends. What the runbook refuses, or cannot do, is a state with its sentence."""
    try:
        return as_state(await carry())
    except RunbookError as error:
        return failed(error)


def failed(error: RunbookError) -> State[None]:
    """The state of a run that could not do what it was asked for: its sentence, and no traceback."""
    return Failed(name="Refused" if error.exit_code is ExitCode.REFUSED else None, message=str(error))
