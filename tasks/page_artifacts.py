"""The artifacts of a release on the Prefect page: plan, tables, progress bars and links. Each has a key per release."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext

from handlers.release.phase import Phase, Release, short
from handlers.status.view import StatusView, StepState
from handlers.status.wrapping import lasted, plain
from tasks.page import Page, key_of

log = logging.getLogger(__name__)

TEXT_MAX = 200_000
"""Characters of a text on the page. The file has all of it."""
ALONE_SECONDS = 20.0
"""How long a run may wait for the page at its end."""
ROWS_MAX = 500
"""Rows of a table on the page."""
_BARS = {Phase.DRAINING: "drain", Phase.WATCHING: "watch"}


async def show_text(page: Page, run: Release, what: str, text: str) -> UUID | None:
    """Show a text in Markdown under the key WHAT-ENVIRONMENT-RELEASE."""
    return await _create(page, run, what, "markdown", text[:TEXT_MAX])


async def show_alone(what: str, environment: str, text: str) -> None:
    """Show a text of a run that is about no release; an error is logged and not raised."""
    if FlowRunContext.get() is None:
        return
    try:
        async with asyncio.timeout(ALONE_SECONDS):
            await acreate_markdown_artifact(
                key=key_of(what, environment),
                markdown=text[:TEXT_MAX],
                description=f"{what.capitalize()} of {environment}",
            )
    except Exception as error:
        log.warning("the Prefect page does not show the %s of %s: %s", what, environment, error)


def fenced(text: str) -> str:
    """A text as it is, in Markdown. The fence is longer than any that a commit's subject has."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"


async def show_hosts(page: Page, run: Release, rows: list[dict[str, Any]]) -> UUID | None:
    """Show the table of hosts and what they run."""
    return await _create(page, run, "hosts", "table", rows)


async def show_batches(page: Page, run: Release, rows: list[dict[str, Any]]) -> UUID | None:
    """Show the table of the drain's batches."""
    return await _create(page, run, "batches", "table", rows)


async def show_bar(page: Page, run: Release, phase: Phase, percent: float, bar: UUID | None) -> UUID | None:
    """Show how much of a drain or a watch is over. With *bar* that one is updated."""
    if bar is None:
        return await _create(page, run, _BARS[phase], "progress", percent)

    async def update(client: PrefectClient) -> UUID:
        await client.update_artifact(bar, ArtifactUpdate(data=percent))
        return bar

    return await page.ask(f"the progress of the {_BARS[phase]}", update)


def host_rows(view: StatusView) -> list[dict[str, Any]]:
    """One row for each host: what it should run, what it runs, and what is to be said of it."""
    return [
        {
            "host": host.name,
            "wanted": short(host.want),
            "runs": short(host.have),
            "state": host.state.replace("_", " "),
            "note": plain(host.note),
        }
        for host in view.hosts[:ROWS_MAX]
    ]


def batch_rows(view: StatusView) -> list[dict[str, Any]]:
    """One row for each batch of the drain; number 0 is the canary."""
    return [
        {
            "batch": "canary" if batch.number == 0 else batch.number,
            "dead letters": batch.size,
            "completed": batch.completed,
            "failed": batch.failed,
            "open": batch.open,
            "took": lasted((batch.settled_at - batch.started_at).total_seconds()) if batch.settled_at else "",
            "judgement": plain(batch.sentence),
        }
        for batch in view.batches[:ROWS_MAX]
    ]


def percent_of(view: StatusView, phase: Phase) -> float | None:
    """How much of a drain or a watch is over, in percent; None before it begins."""
    step = next((step for step in view.steps if step.phase is phase), None)
    if step is None or step.started_at is None:
        return None
    if step.state is StepState.DONE:
        return 100.0
    if view.release is None or view.release.phase is not phase:
        return None
    if phase is Phase.DRAINING:
        left_alone = view.events_settled + view.events_set_aside
        return round(100.0 * min(1.0, left_alone / view.events_planned), 1) if view.events_planned else None
    if not view.window_seconds or view.running_seconds is None:
        return None
    return round(min(99.0, 100.0 * view.running_seconds / view.window_seconds), 1)


async def _create(page: Page, run: Release, what: str, kind: str, data: Any) -> UUID | None:
    artifact = ArtifactCreate(
        key=key_of(what, run.environment, run.id),
        type=kind,
        description=f"{what.capitalize()} of release {run.id}: {short(run.to_revision)} to {run.environment}",
        data=data,
        flow_run_id=page.root_id,
    )
    created = await page.ask(f"the {what}", lambda client: client.create_artifact(artifact))
    return None if created is None else created.id
