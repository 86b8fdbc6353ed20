"""What people ask of a running release: by command, through the ledger, or with Cancel on the Prefect page.

Prefect only sets the state of the run to Cancelling. A worker then ends the process after seconds; a driver's own run
is ended by nobody. So both are polled, and the decision is written to the ledger before anything else is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

from prefect.context import FlowRunContext

from handlers.release.decisions import SKIPPABLE, Verb
from handlers.release.ledger.requests import Request
from handlers.release.phase import Phase, Release
from tasks import page, requests

log = logging.getLogger(__name__)

T = TypeVar("T")
POLL_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""How long the Prefect server may take to answer. The release never waits for it."""


class Asked(Exception):
    """A person asked for something that ends the running step."""

    def __init__(self, request: Request | None) -> None:
        super().__init__(request.sentence if request else "cancelled")
        self.request = request
        """None for Cancel on the Prefect page."""


@contextlib.contextmanager
def sigterm() -> Iterator[asyncio.Future[None]]:
    """A future that is done at SIGTERM, while a flow runs; otherwise it never is.

    A worker ends a cancelled run with SIGTERM. Prefect's own handler raises an exception wherever the process is at
    that moment, in any task: the cancel would be lost.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    if FlowRunContext.get() is None or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note() -> None:
        if not came.done():
            came.set_result(None)

    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(note))
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


async def until_asked(work: Awaitable[T], run: Release, terminated: asyncio.Future[None]) -> T:
    """The result of *work*. Raises Asked, with the work stopped, when a person asks for something.

    SIGTERM alone (a reboot, a worker that stops) asks for nothing: then the work is cancelled as usual.
    """
    running = asyncio.ensure_future(work)
    polls = [asyncio.ensure_future(_cancelled()), asyncio.ensure_future(_requested(run))]
    try:
        awaited: set[asyncio.Future[Any]] = {running, *polls, terminated}
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        if terminated.done():
            raise asyncio.CancelledError("terminated by a signal")  # noqa: TRY301  Handled below, as every cancel.
        raise Asked(next((poll.result() for poll in polls if poll.done()), None))
    except asyncio.CancelledError:
        # The worker was faster than the poll.
        if await is_cancelled_on_page():
            raise Asked(None) from None
        raise
    finally:
        for task in (running, *polls):
            task.cancel()
        await asyncio.wait({running, *polls})


def ends_step(request: Request, phase: Phase) -> bool:
    """Whether a request ends the running step at once.

    A deploy looks for a hold itself, before each group of hosts: broken off, it would leave workers stopped.
    """
    match request.verb:
        case Verb.HOLD:
            return phase is not Phase.DEPLOYING
        case Verb.SKIP:
            return phase in SKIPPABLE
    return True


async def is_cancelled_on_page() -> bool:
    """Whether the run of the release or of its phase is being cancelled; False when the server does not say."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    shown = page.page()
    # Within a phase the context is the phase's. A person may cancel either of the two.
    ids = {context.flow_run.id, *([shown.root_id] if shown else [])}
    with contextlib.suppress(Exception):  # Prefect being away says nothing about the release.
        async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
            runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[*ids])))
            states = [run.state for run in runs if run.state is not None]
            return any(state.is_cancelling() or state.is_cancelled() for state in states)
    return False


async def _cancelled() -> None:
    while not await is_cancelled_on_page():  # noqa: ASYNC110  The event is in another process.
        await asyncio.sleep(POLL_SECONDS)
    log.warning("the run is being cancelled on the Prefect page")


async def _requested(run: Release) -> Request:
    while True:
        # The ledger being away is the step's to notice. No failed look may end the step.
        with contextlib.suppress(Exception):
            for request in await requests.see(run):
                if ends_step(request, run.phase):
                    log.warning("%s", request.sentence)
                    return request
        await asyncio.sleep(POLL_SECONDS)
