"""The evidence against a failure rate: a betting score over blocks of units, valid at every look.

Bet against the claim "a new unit fails with probability at most q": a failure multiplies the stake by q1/q, anything
else by (1 - q1)/(1 - q). On average the stake cannot grow while the claim is true, whatever came before. So it reaches
1/a with a probability of at most a, at any of any number of looks (Ville's inequality).

The score is an average of such stakes: over four failure rates q1, and over the block in which the fault began. What
is pending counts as good until its deadline, the smallest value that it can take. A forgiven window is deleted where it
hurts the release most, so that one blip of that length cannot cause a rollback.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

GAINS = (0.158, 0.368, 0.684, 0.968)
"""How far q1 lies between q and 1. With q = 5 % they are failure rates of 20, 40, 70 and 97 %."""
WATCH_BLOCKS, GUARD_BLOCKS = 60, 2880
NEGLIGIBLE = -45.0
"""The logarithm below which a term no longer changes the sum."""


def onset_weight(block: int) -> float:
    """How likely the fault begins in *block*, before anything was seen: half at the switch, a quarter in the watch."""
    if block == 0:
        return 0.5
    if block <= WATCH_BLOCKS:
        return 0.25 / WATCH_BLOCKS
    return 0.25 / (GUARD_BLOCKS - WATCH_BLOCKS) if block <= GUARD_BLOCKS else 0.0


_WEIGHTS = tuple(onset_weight(block) for block in range(GUARD_BLOCKS + 1))


def odds(units: Sequence[int], bad: Sequence[int], q: float, *, forgive: int = 0, first: int = 0) -> float:
    """E(q): the odds against "at most q of the units fail", from the counts of each block.

    *forgive* blocks in a row are deleted where the evidence is greatest. *first* is the block at which looking began.
    """
    failed = sum(bad[first:])
    if not failed or q >= 1.0:
        return min(1.0, sum(_WEIGHTS[: len(units) - first]))
    return sum(_odds_for(units, bad, q, gain, forgive, first, failed) for gain in GAINS) / len(GAINS)


def _odds_for(  # noqa: PLR0917
    units: Sequence[int], bad: Sequence[int], q: float, gain: float, forgive: int, first: int, failed: int
) -> float:
    """The same for one alternative: a sum over onsets, from the newest block back to the oldest."""
    up = math.log((q + (1 - q) * gain) / q)
    down = math.log(1 - gain)
    total = since = window = worst = 0.0
    before = failed
    steps: list[float] = []
    last = len(units) - 1
    for block in range(last, first - 1, -1):
        lost = bad[block]
        step = lost * up + (units[block] - lost) * down
        since += step
        before -= lost
        if forgive:
            steps.append(step)
            window += step
            if len(steps) > forgive:
                window -= steps[-forgive - 1]
            worst = max(worst, window)
        onset = block - first
        if onset <= GUARD_BLOCKS:
            total += _WEIGHTS[onset] * math.exp(min(since - worst, 700.0))
        if since - worst + before * up < NEGLIGIBLE:
            break
    return total
