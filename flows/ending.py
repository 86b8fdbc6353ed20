"""The end of a release: how the Prefect page shows it, and how a process learns that only Prefect is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from handlers.errors import ExitCode, RunbookError
from handlers.release.phase import Release, exit_code


@dataclass(kw_only=True)
class WorkDone:
    """Set once a process has done all of its work on a release and only Prefect has still to be told."""

    happened: threading.Event = field(default_factory=threading.Event)
    exit_code: ExitCode = ExitCode.GOOD


WORK_DONE = WorkDone()


@contextmanager
def work() -> Iterator[None]:
    """Around the work of one process on one release."""
    try:
        yield
    except RunbookError as error:
        WORK_DONE.exit_code = error.exit_code
        raise
    finally:
        WORK_DONE.happened.set()


def as_state(run: Release) -> State[None]:
    """Green, red, or completed under a name of its own."""
    match exit_code(run.phase):
        case ExitCode.GOOD:
            return Completed(message=run.reason)
        case ExitCode.ROLLED_BACK:
            return Completed(name="RolledBack", message=run.reason)
        case ExitCode.HELD:
            return Completed(name="Held", message=run.reason)
        case _:
            return Failed(message=run.reason)
