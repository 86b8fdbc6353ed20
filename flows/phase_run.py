"""A run of its own on the Prefect page for each phase of a release, named after the phase."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.ending import CANCELLED_ON_PAGE
from handlers.release.phase import Phase, Release, short
from tasks import page, page_phase

_KINDS = {
    Phase.DEPLOYING: "deploy",
    Phase.PROBING: "probe",
    Phase.CANARY: "canary",
    Phase.DRAINING: "drain",
    Phase.WATCHING: "watch",
    Phase.ROLLING_BACK: "rollback",
}

_STOPPED_BY_CANCEL = (Phase.HELD, Phase.ROLLING_BACK, Phase.ABORTED)
_UNUSUAL: dict[Phase, tuple[Callable[..., State[None]], str]] = {
    Phase.HELD: (Completed, "Held"),
    Phase.ABORTED: (Completed, "Aborted"),
    Phase.REFUSED: (Failed, "Refused"),
    Phase.ROLLBACK_FAILED: (Failed, "RollbackFailed"),
}
"""What ended a phase, where it was not its own success: a state with a name of its own."""


async def in_its_run(run: Release, work: Callable[[], Awaitable[Release]]) -> Release:
    """The result of the *work* of a phase, shown as a run below the release's. Without Prefect just the result.

    What the work returns or raises, and how it is cancelled, is the same with and without the page.
    """
    shown = page.page()
    if shown is None:
        return await work()
    kind, title = _KINDS[run.phase], title_of(run)
    creation = await page_phase.begin_phase(shown, run, title, kind)
    with page_phase.within(shown, kind):
        try:
            after = await work()
        except asyncio.CancelledError:
            sentence = f"stopped while it was {run.phase}; `runbook resume` goes on from the ledger"
            page_phase.end_phase(shown, title, creation, Crashed(message=sentence))
            raise
        except Exception as error:
            sentence = f"{type(error).__name__}: {error}"[:1000]
            page_phase.end_phase(shown, title, creation, Failed(message=sentence))
            raise
        page_phase.end_phase(shown, title, creation, state_after(run, after))
        return after


def title_of(run: Release) -> str:
    """The name of the phase that the release is in, for people."""
    kind = _KINDS[run.phase]
    match run.phase:
        case Phase.DEPLOYING:
            return f"{kind} {page.target_of(run)}"
        case Phase.ROLLING_BACK:
            return f"roll back {run.environment} to {short(run.from_revision)}"
    return kind


def state_after(before: Release, after: Release) -> State[None]:
    """The state of a phase's run, by the phase that the release entered, with the sentence of its conclusion."""
    sentence = after.reason
    if CANCELLED_ON_PAGE in sentence and after.phase in _STOPPED_BY_CANCEL:
        return Cancelled(message=sentence)
    if after.phase is Phase.ROLLING_BACK and before.phase is not Phase.ROLLING_BACK:
        return Failed(name="NotPassed", message=sentence)
    if after.phase in _UNUSUAL:
        make, name = _UNUSUAL[after.phase]
        return make(name=name, message=sentence)
    return Completed(message=sentence)
