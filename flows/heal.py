"""The schedule's part of healing: every 15 minutes it mends what can be mended between the releases."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from flows.due import run_command

LIMIT_SECONDS = 840.0
"""A run is bounded by less. The next one comes after 15 minutes, and goes on from the ledger."""


@flow(name="heal", flow_run_name="heal")
async def heal() -> State[None]:
    """Heal every environment: the same as `runbook heal --due`.

    Events come back from dead workers, old dead letters go back in growing batches, and people are told of a backlog.
    """
    return await run_command("heal", "--due", limit_seconds=LIMIT_SECONDS, found="Healed")
