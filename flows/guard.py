"""The schedule's part of the guard: once a minute it takes the checks that are due, of every release that has ended."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.due import run_command

LIMIT_SECONDS = 240.0
"""A check is bounded by less. What is not taken now is due a minute later."""


@flow(name="guard-due", flow_run_name="guard-due")
async def guard_due() -> State[None]:
    """Take every check that is due, in all environments: the same as `runbook guard --due --detach`.

    Nothing waits for hours in a run. A breach begins the way back, in a process of its own.
    """
    return await run_command("guard", "--due", limit_seconds=LIMIT_SECONDS, found="Checked")
