"""How patient a step is: a name, a timeout and retries around one call of the core."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.tasks import Task

from handlers.errors import TryAgain

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """So many more tries after the first, with these pauses in real seconds, within one limit for each try."""

    pauses: tuple[float, ...]
    limit_seconds: float


LOOK = Patience(pauses=(0.5, 1, 2, 4, 8, 15), limit_seconds=1200)
"""Reading: often and soon. The limit only stops what every limit below it has missed."""
CHANGE = Patience(pauses=(1, 5), limit_seconds=3600)
"""Changing something under an operation id: a second try finds the first one."""
KEEP = Patience(pauses=(0.5, 1, 2, 4, 8, 15, 30, 60, 60, 60, 60), limit_seconds=60)
"""Bookkeeping that is harmless to repeat and must not be lost to a short absence of the database."""


def step(patience: Patience) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Make a coroutine function one patient step.

    Within a flow run it is a Prefect task that caches nothing and is retried on `TryAgain` alone. Outside one it is
    the same call with the same patience and no Prefect at all, so that a rollback works when the server is gone.
    """

    def wrap(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        as_task: Task[P, Any] = task(
            name=f"{function.__module__.removeprefix('tasks.')}.{function.__name__}",
            retries=len(patience.pauses),
            retry_delay_seconds=list(patience.pauses),
            retry_condition_fn=_may_try_again,
            timeout_seconds=patience.limit_seconds,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if FlowRunContext.get() is None:
                return await _patiently(function, patience, *args, **kwargs)
            result: T = await as_task(*args, **kwargs)
            return result

        return call

    return wrap


async def _may_try_again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        await state.result()
    except TryAgain:
        return True
    except Exception:  # Any other error is for the caller to judge; here only "may I repeat" is asked.
        return False
    return False


async def _patiently(
    function: Callable[P, Awaitable[T]], patience: Patience, *args: P.args, **kwargs: P.kwargs
) -> T:
    for pause in patience.pauses:
        try:
            async with asyncio.timeout(patience.limit_seconds):
                return await function(*args, **kwargs)
        except TryAgain as error:
            log.warning("%s: trying again in %s s", error, pause)
            await asyncio.sleep(pause)
    async with asyncio.timeout(patience.limit_seconds):
        return await function(*args, **kwargs)
