"""The steps on hosts as tasks of the Prefect page: "Stop workers on web-1", from its start to its end in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from handlers.status.view import HostStep, StatusView, StepState
from handlers.status.wrapping import lasted, plain
from tasks.page import Page

_TITLES = {
    "prepare": "Prepare {host}",
    "stop": "Stop workers on {host}",
    "switch": "Switch {host}",
    "probe": "Probe {host}",
    "start": "Start workers on {host}",
}
_BEGUN = (StepState.RUNNING, StepState.DONE, StepState.FAILED)
END_SECONDS = 2.0
_Key = tuple[object, ...]
_End = tuple[Callable[..., State[None]], str]
"""How a step has ended: what makes its state, and the sentence."""


class HostSteps:
    """The steps on hosts that the page shows. Each is a task that waits for the end that the ledger tells."""

    def __init__(self, opened: Page) -> None:
        self._page = opened
        self._ends: dict[_Key, asyncio.Future[_End]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def show(self, view: StatusView) -> None:
        """Begin and end tasks as the view tells."""
        for step in view.steps:
            for host in step.hosts:
                for each in host.steps:
                    if each.state in _BEGUN:
                        self._show(host.host, step.name, each)

    async def end(self) -> None:
        """End what was not seen to end: its outcome is not known. The last states are sent, if that takes a moment."""
        for end in self._ends.values():
            if not end.done():
                end.set_result((Cancelled, "the release went on or stopped before its end was recorded"))

    def _show(self, host: str, phase: str, step: HostStep) -> None:
        key = (phase, host, step.step, step.started_at)
        if key not in self._ends:
            self._ends[key] = asyncio.get_running_loop().create_future()
            title = _TITLES.get(step.step, f"{step.step} {{host}}").format(host=host)
            self._begin(phase, title, self._ends[key])
        end = self._ends[key]
        if step.state is not StepState.RUNNING and not end.done():
            end.set_result(_end_of(step))

    def _begin(self, phase: str, title: str, end: asyncio.Future[_End]) -> None:
        @task(name=title, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
        async def shown() -> State[None]:
            # Made now: the page ignores a state that is older than the start of its task.
            make, sentence = await end
            return make(message=sentence)

        async def run() -> None:
            with self._page.within_phase(phase):
                await shown()

        running = asyncio.create_task(run())
        self._running.add(running)
        running.add_done_callback(self._forget)

    def _forget(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()


def _end_of(step: HostStep) -> _End:
    took = f"after {lasted(step.seconds)}" if step.seconds is not None else ""
    sentence = ": ".join(filter(None, (took, plain(step.sentence))))
    return (Completed if step.state is StepState.DONE else Failed), sentence
