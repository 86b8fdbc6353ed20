"""Events for Prefect, on which an automation can act: those of prefect.yaml, and your own."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext
from prefect.events import emit_event

from handlers.release.phase import LIVE, Phase, Release
from handlers.release.topic import Topic

log = logging.getLogger(__name__)


_TOPICS = {
    Phase.ROLLING_BACK: Topic.ROLLING_BACK,
    Phase.HELD: Topic.HELD,
    Phase.SUCCEEDED: Topic.SUCCEEDED,
    Phase.ABORTED: Topic.ABORTED,
    Phase.REFUSED: Topic.REFUSED,
    Phase.ROLLED_BACK: Topic.ROLLED_BACK,
    Phase.ROLLBACK_FAILED: Topic.ROLLBACK_FAILED,
}


def announce_change(before: Release, after: Release) -> None:
    """Emit what has become of a release: `runbook.release.held` and the like; nothing from phase to phase."""
    if after.phase is before.phase:
        return
    if before.phase in (Phase.PLANNED, Phase.APPROVED) and after.phase in LIVE:
        announce(Topic.STARTED, after)
    if (topic := _TOPICS.get(after.phase)) is not None:
        announce(topic, after, sentence=after.reason)


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
    about = {"environment": run.environment, "release": run.id, "revision": run.to_revision}
    try:
        emit_event(event=f"runbook.{event}", resource=resource, payload=about | dict(payload))
    except Exception as error:  # Whatever Prefect's trouble is, it is not the release's.
        log.warning("event runbook.%s was not emitted: %s", event, error)
