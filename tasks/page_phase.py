"""A run of its own on the Prefect page for a phase: made and ended in the background, below the run of its release."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any
from uuid import uuid4

from prefect import Task, flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentTaskRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Pending, Running

from handlers.release.phase import Phase, Release
from tasks.page import BEGIN_SECONDS, NAME_MAX, Page, tags_of

BEGIN_AGAIN_SECONDS = 1.0
"""The same once it was too slow. The run of the phase is shown as soon as the server has made it."""
BEGIN_BACK_SECONDS = 1.0
"""The same for a rollback. A server that is away delays neither: it refuses the connection."""
LATE_SECONDS = 120.0
"""How long the run of a phase may take to be made. Nobody waits for it so long."""


@contextmanager
def within(shown: Page, kind: str) -> Iterator[None]:
    """Everything in the block belongs to the run of this phase: its steps, its logs.

    Only the place where they are shown changes. Signals, cancellation and errors stay those of the run that a person
    started: a run of Prefect's engine would catch them.
    """
    phase = shown.phases.get(kind)
    with phase.model_copy() if phase is not None else nullcontext():
        yield


Creation = asyncio.Task[FlowRun | None]
"""The run of a phase that is being made; None where the page could not be reached."""


async def begin_phase(shown: Page, run: Release, title: str, kind: str) -> Creation:
    """Make a run for a phase, below the run that a person started. It is done, unless the server is slow."""
    flow_of_phase, key = phase_flow(kind), str(uuid4())

    async def create(client: PrefectClient) -> FlowRun:
        # The page draws a run below another one where a task of the upper one stands for it. A repeated call finds it.
        stands_for = await client.create_task_run(
            task=Task(name=title, fn=flow_of_phase.fn),
            flow_run_id=shown.root_id,
            dynamic_key=key,
            name=title[:NAME_MAX],
            state=Pending(),
        )
        same = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=[stands_for.id]))
        for before in await client.read_flow_runs(flow_run_filter=same):
            return before
        return await client.create_flow_run(
            flow_of_phase,
            name=title[:NAME_MAX],
            tags=tags_of(run),
            parent_task_run_id=stands_for.id,
            state=Running(),
        )

    async def make() -> FlowRun | None:
        made = await shown.ask(f"the phase {title!r}", create, seconds=LATE_SECONDS)
        if made is not None:
            update = {"flow_run": made, "flow": flow_of_phase, "task_run_dynamic_keys": {}}
            shown.phases[kind] = shown.root.model_copy(update=update)
        return made

    shown.phases.pop(kind, None)
    creation = asyncio.create_task(make())
    seconds = BEGIN_BACK_SECONDS if run.phase is Phase.ROLLING_BACK else BEGIN_SECONDS
    try:
        _, late = await asyncio.wait({creation}, timeout=BEGIN_AGAIN_SECONDS if shown.is_slow else seconds)
    except asyncio.CancelledError:
        creation.cancel()
        raise
    shown.is_slow = shown.is_slow or bool(late)
    return creation


def end_phase(shown: Page, title: str, creation: Creation, state: State[None]) -> None:
    """Set the final state of a phase's run, in the background."""

    async def end() -> None:
        if (run := await creation) is not None:
            finish = partial(PrefectClient.set_flow_run_state, flow_run_id=run.id, state=state, force=True)
            await shown.ask(f"the end of {title!r}", finish)

    shown.soon(end())


@cache
def phase_flow(kind: str) -> Flow[[], Any]:
    """The flow under which the page files the runs of a phase."""

    @flow(name=f"phase-{kind}")
    async def phase() -> None:
        """One phase of a release; it runs within the run of its release."""

    return phase
