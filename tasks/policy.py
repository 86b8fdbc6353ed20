"""The retry policy of a step: a name, a timeout and retries around one call of the handlers."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import Task

from handlers.errors import LEDGER_AWAY, TryAgain
from tasks import page

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_ARGUMENT = re.compile(r" ?\{[^}]*\}")

OUTAGE_PAUSES = (0.5, 1, 2, 4, 8, *(15.0,) * 39)
"""Ten minutes. Our database is never the fault of a release or of a host, so every step waits this long for it."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The pauses before each retry (real seconds), and the timeout of each try."""

    pauses: tuple[float, ...]
    """One retry follows each pause."""
    limit_seconds: float | None
    """None for what has no end of its own, and is stopped by the flow."""
    outage_pauses: tuple[float, ...] = OUTAGE_PAUSES
    """The pauses while the database is away. They belong to the error and not to the step, and use up no retry."""


LOOK = RetryPolicy(pauses=(0.5, 1, 2, 4, 8, 15), limit_seconds=1200)
"""Reading: many retries, soon. The timeout is a last resort; the calls inside have shorter ones."""
BESIDE = RetryPolicy(pauses=LOOK.pauses, limit_seconds=None)
"""Looking beside a phase, for as long as that lasts: a drain may take hours."""
CHANGE = RetryPolicy(pauses=(1, 5), limit_seconds=3600)
"""A change under an operation id: a retry attaches to the first try."""
ONCE = RetryPolicy(pauses=(), limit_seconds=170, outage_pauses=(1, 2))
"""What stays due and is taken up again in a minute: nobody waits for it."""
SHORT_RUN = RetryPolicy(pauses=(), limit_seconds=900, outage_pauses=())
"""A run that bounds itself and is not tried again: the next one of its schedule goes on from the ledger."""
KEEP = RetryPolicy(pauses=(0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60, 60), limit_seconds=60)
"""Idempotent writes to the ledger."""


def step(policy: RetryPolicy, title: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Make a coroutine function a step with retries and a timeout.

    *title* is its name on the Prefect page, for people: "Redrive batch {number}", with the function's arguments.

    Within a flow run it is a Prefect task without a cache, retried on `TryAgain` only. Outside a flow run it is the
    same call with the same policy and without Prefect, so that a rollback works when the Prefect server is down.
    A step may be repeated at any point, so while the database is away it is called again after each pause.
    """

    def wrap(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def told(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await through_outage(*args, **kwargs)
            except asyncio.CancelledError:
                # A breach beside it, or a person, ended the phase. Prefect calls that a crash.
                page.add_to_name("stopped with its phase")
                raise

        async def through_outage(*args: P.args, **kwargs: P.kwargs) -> T:
            for pause in policy.outage_pauses:
                try:
                    async with asyncio.timeout(policy.limit_seconds):
                        return await function(*args, **kwargs)
                except LEDGER_AWAY as error:
                    log.warning("%s: waiting %g s for the database", error, pause)
                    await asyncio.sleep(pause)
            async with asyncio.timeout(policy.limit_seconds):
                return await function(*args, **kwargs)

        as_task: Task[P, Any] = task(
            name=_ARGUMENT.sub("", title),
            task_run_name=functools.partial(_name, title),
            retries=len(policy.pauses),
            retry_delay_seconds=list(policy.pauses),
            retry_condition_fn=_may_retry,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(told)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if FlowRunContext.get() is None:
                return await _with_retries(through_outage, policy, *args, **kwargs)
            page.quiet()
            result: T = await as_task(*args, **kwargs)
            return result

        return call

    return wrap


def _name(title: str, parameters: dict[str, Any]) -> str:
    """The name of one run of a step. A title that cannot be filled in is shown as it is: it must stop no step."""
    try:
        return title.format(**parameters)
    except Exception:
        return title


async def _may_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        await state.result()
    except LEDGER_AWAY:  # It has been waited for already.
        return False
    except TryAgain:
        return True
    except Exception:  # Any other error is the caller's; this function only decides about a retry.
        return False
    return False


async def _with_retries(
    function: Callable[P, Awaitable[T]], policy: RetryPolicy, *args: P.args, **kwargs: P.kwargs
) -> T:
    for pause in policy.pauses:
        try:
            return await function(*args, **kwargs)
        except LEDGER_AWAY:  # It has been waited for already.
            raise
        except TryAgain as error:
            log.warning("%s: retrying in %s s", error, pause)
            await asyncio.sleep(pause)
    return await function(*args, **kwargs)
