"""How the Prefect page shows the end of a release."""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from handlers.errors import ExitCode
from handlers.release import Release, exit_code


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
