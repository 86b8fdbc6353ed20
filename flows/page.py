"""Cancel on the Prefect page: the running step stops, and the release decides what that means.

Prefect only sets the state of the run to Cancelling. A worker then ends the process after seconds; a driver's own run
is ended by nobody. So the state is polled, and the decision is written to the ledger before anything else is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import TypeVar

from prefect.context import FlowRunContext

log = logging.getLogger(__name__)

T = TypeVar("T")
POLL_SECONDS = 1.0
ANSWER_SECONDS = 5.0
"""How long the Prefect server may take to answer. The release never waits for it."""


class CancelledOnPage(Exception):
    """A person cancelled the flow run that executes the release."""


async def until_cancelled_on_page(work: Awaitable[T]) -> T:
    """The result of *work*. Raises CancelledOnPage, with the work stopped, when the flow run is cancelled.

    SIGTERM alone (a reboot, a worker that stops) is no cancel: then the work is cancelled as usual.
    """
    if FlowRunContext.get() is None:
        return await work
    running = asyncio.ensure_future(work)
    polling = asyncio.ensure_future(_cancelled())
    try:
        await asyncio.wait({running, polling}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise CancelledOnPage
    except asyncio.CancelledError:
        # The worker was faster than the poll.
        if await is_cancelled_on_page():
            raise CancelledOnPage from None
        raise
    finally:
        for task in (running, polling):
            task.cancel()
        await asyncio.wait({running, polling})


async def is_cancelled_on_page() -> bool:
    """Whether the flow run is being cancelled; False when the Prefect server does not say."""
    from prefect.client.orchestration import get_client

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    with contextlib.suppress(Exception):  # Prefect being away says nothing about the release.
        async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
            state = (await client.read_flow_run(context.flow_run.id)).state
            return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


async def _cancelled() -> None:
    while not await is_cancelled_on_page():  # noqa: ASYNC110  The event is in another process.
        await asyncio.sleep(POLL_SECONDS)
    log.warning("the run is being cancelled on the Prefect page")
