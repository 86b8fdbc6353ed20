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
from collections.abc import Iterator, Sequence
from itertools import accumulate

GAINS = (0.158, 0.368, 0.684, 0.968)
"""How far q1 lies between q and 1. With q = 5 % they are failure rates of 20, 40, 70 and 97 %."""
WATCH_BLOCKS, GUARD_BLOCKS = 60, 2880
NEGLIGIBLE = -45.0
"""A term whose logarithm is below this does not change the sum."""
LARGEST = 700.0


def onset_weight(block: int) -> float:
    """How likely the fault begins in *block*, before anything is known: half at the switch, a quarter in the watch."""
    if block == 0:
        return 0.5
    if block <= WATCH_BLOCKS:
        return 0.25 / WATCH_BLOCKS
    return 0.25 / (GUARD_BLOCKS - WATCH_BLOCKS) if block <= GUARD_BLOCKS else 0.0


_WEIGHTS = tuple(onset_weight(block) for block in range(GUARD_BLOCKS + 1))
_SUMS = tuple(accumulate(_WEIGHTS, initial=0.0))


def onsets(first: int, end: int) -> float:
    """The weight of the onsets from *first* to before *end*: what the odds can grow by without a failure."""
    return _SUMS[min(end, len(_WEIGHTS))] - _SUMS[min(first, len(_WEIGHTS))]


def odds(units: Sequence[int], bad: Sequence[int], q: float, *, forgive: int = 0, first: int = 0) -> float:
    """E(q): the odds against "at most q of the units fail", from the counts of each block.

    The *forgive* blocks in a row with the most evidence are deleted. *first* is the block at which looking began.
    """
    if q >= 1.0:
        # "All of them fail" cannot be refuted.
        return onsets(0, max(len(units) - first, 0))
    stakes = (term for gain in GAINS for _, term in terms(units[first:], bad[first:], q, gain, forgive))
    return sum(stakes) / len(GAINS)


def likely_onset(units: Sequence[int], bad: Sequence[int], q: float, *, forgive: int = 0) -> int:
    """The block in which the fault began most likely: the largest term of the odds."""
    stakes = (
        (term, block) for gain in GAINS for block, term in terms(units, bad, q, gain, forgive) if term > 0
    )
    return max(stakes, default=(0.0, 0))[1]


def terms(
    units: Sequence[int], bad: Sequence[int], q: float, gain: float, forgive: int
) -> Iterator[tuple[int, float]]:
    """For one alternative: each onset with its weighted stake, from the newest to the oldest that matters."""
    up, down = math.log((q + (1 - q) * gain) / q), math.log(1 - gain)
    since = window = worst = 0.0
    before = sum(bad)
    steps: list[float] = []
    for block in range(len(units) - 1, -1, -1):
        failed = bad[block]
        step = failed * up + (units[block] - failed) * down
        since += step
        before -= failed
        if forgive:
            steps.append(step)
            window += step - (steps[-forgive - 1] if len(steps) > forgive else 0.0)
            worst = max(worst, window)
        stake = since - worst
        if block <= GUARD_BLOCKS:
            yield block, _WEIGHTS[block] * math.exp(min(stake, LARGEST))
        if stake + before * up < NEGLIGIBLE:
            # Even if all that failed before had nothing good beside it, no older onset would count.
            return
