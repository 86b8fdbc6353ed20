"""Whether the workers honour the limits that the breaker has set. Pure.

Workers of a version without limits admit whatever is due. Then the breaker saves nothing, and the gate has to say so
and to decide without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from handlers.gate.parameters import POOLED

MARGIN = 5
"""What was claimed just before the limit was committed may look as if it was admitted after it."""


def ignored(
    admitted: Mapping[str, int], quotas: Mapping[str, int], elapsed_s: float, *, tick_s: float = 10.0
) -> str:
    """A sentence if the workers ignore the limits, else empty.

    *admitted* is how many items of each type workers have taken in the last *elapsed_s* seconds, replays too. *quotas*
    are the largest that were in force in all of this time, by stream, each in *tick_s*. Twice what they let through and
    five more are needed, so that a change of the quota or a late count is no disobedience.
    """
    # A window of this length may begin anywhere: it meets one more than it holds.
    windows = max(1, ceil(elapsed_s / tick_s) + 1)
    for stream, quota in sorted(quotas.items()):
        taken = sum(admitted.values()) if stream == POOLED else admitted.get(stream, 0)
        if taken > 2 * quota * windows + MARGIN:
            what = "items" if stream == POOLED else f"items of {stream}"
            return (
                f"the workers do not honour limits: they took {taken} {what} in {elapsed_s:.0f} s, "
                f"where {quota} in {tick_s:.3g} s were allowed"
            )
    return ""
