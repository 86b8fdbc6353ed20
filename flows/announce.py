"""Events for Prefect, on which an automation can page a person (`prefect automation create`)."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext
from prefect.events import emit_event

from handlers.release.phase import Release

log = logging.getLogger(__name__)


def announce(event: str, run: Release, **payload: str | int) -> None:
    """Emit `runbook.EVENT` for a release. Without a Prefect server nothing happens; never raises.

    Prefect sends it from a thread of its own, so that no rollback waits for a dead server.
    """
    if FlowRunContext.get() is None:
        return
    resource = {
        "prefect.resource.id": f"runbook.release.{run.environment}.{run.id}",
        "prefect.resource.name": f"release {run.id} in {run.environment}",
    }
    try:
        emit_event(event=f"runbook.{event}", resource=resource, payload=dict(payload))
    except Exception as error:  # Whatever Prefect's trouble is, it is not the release's.
        log.warning("event runbook.%s was not emitted: %s", event, error)
