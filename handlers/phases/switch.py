"""When the released workers began to run: from then on a release is judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from handlers.release.ledger.intents import OperationRecord
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.phase import Phase


def switched_at(
    phases: Sequence[PhaseRecord], operations: Sequence[OperationRecord]
) -> tuple[datetime | None, datetime | None]:
    """From when on released workers may run, and when they ran: the first command that started them, and its end.

    Without workers it is the first switch of a host; where nothing was deployed, the start of the first phase.
    """
    for kind in ("start-workers", "activate"):
        found = [each for each in operations if each.kind == kind and each.phase is Phase.DEPLOYING]
        if found:
            begun = min(each.started_at for each in found)
            return begun, min((each.finished_at for each in found if each.finished_at), default=begun)
    times = [each.started_at for each in phases if each.phase not in (Phase.PLANNED, Phase.APPROVED)]
    first = min(times, default=None)
    return first, first
