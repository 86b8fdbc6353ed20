"""Promotion: what must be proven before a watch passes. Pending counts as failed here, the other way round.

F(q) is the stake of a bet that the release fails less than q: healthy units let it grow. A release that fails in q or
more reaches 1/b with a probability of at most b.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from handlers.gate.blocks import Distinct
from handlers.gate.day_before import wilson_lower
from handlers.gate.holds import Holds
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.units import Units
from handlers.gate.weigh import Weighed

GOOD_RATES = (0.005, 0.02, 0.05)
RECORDS_FAILED, NAMES_MAX = 3, 3
SLOW_SHARE = 0.05
"""A release is slower than the one before if surely more than these take longer than 99 of 100 did."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The distinct records of the watch."""

    good: int
    units: int
    bad_odds: float
    """F at the bar for "bad"."""
    mid_odds: float
    """F at the bar for "tolerable"."""
    rate: float | None
    """The measured success without the worst window."""
    rest_good: int = 0
    """Without the worst window, as the three below: those that completed, all, those that have ended."""
    rest_units: int = 0
    rest_ended: int = 0
    blocks: int = 1
    """How many windows there were to choose from: what is proven without one is divided by it."""


def proof(units: Units, holds: Holds) -> Proof:
    """Count the records, and what they prove, without one window where that proves more."""
    p, counts = units.parameters, _unmasked(units.distinct, holds)
    first, last = counts.worst_window(p.forgiven_blocks)
    total, well, ill = counts.totals["units"], counts.totals["good"], counts.totals["bad"]
    fewer, well_fewer = total - sum(counts.units[first:last]), well - sum(counts.good[first:last])
    blocks = max(len(counts.units), 1)
    settled = well_fewer + ill - sum(counts.bad[first:last])

    def best(q: float) -> float:
        return max(health_odds(well, total, q), health_odds(well_fewer, fewer, q) / blocks)

    return Proof(
        good=well,
        units=total,
        bad_odds=best(1 - p.bad),
        mid_odds=best(1 - p.tolerable),
        rate=well_fewer / settled if settled else None,
        rest_good=well_fewer,
        rest_units=fewer,
        rest_ended=settled,
        blocks=blocks,
    )


def health_odds(good: int, units: int, q: float) -> float:
    """F(q): the odds against "q or more of the records fail"."""
    score = 0.0
    for rate in GOOD_RATES:
        if rate < q:
            log = good * math.log((1 - rate) / (1 - q)) + (units - good) * math.log(rate / q)
            score += math.exp(min(log, 700.0))
    return score / len(GOOD_RATES)


def _unmasked(counts: Distinct, holds: Holds) -> Distinct:
    """The counts without what was admitted in an outage of the upstream."""
    if not holds.outages:
        return counts
    left = Distinct()
    for block in range(len(counts.units)):
        if not holds.masked(block):
            for name in left.totals:
                left.count(name, block, counts.column(name)[block])
    left.reach(len(counts.units) - 1)
    return left


def clean_missing(seen: Proof, parameters: Parameters) -> int:
    """How many more clean records would prove enough."""
    for more in range(10_000):
        good, units = seen.good + more, seen.units + more
        if (
            health_odds(good, units, 1 - parameters.bad) >= 1 / parameters.beta
            and health_odds(good, units, 1 - parameters.tolerable) >= 1 / parameters.beta_mid
        ):
            return more
    return 10_000


def obstacles(
    units: Units, holds: Holds, seen: Proof, doubts: Sequence[Weighed], untaken: int
) -> Iterator[str]:
    """What stands in the way of a promotion, in the order in which a person would ask."""
    p = units.parameters
    if holds.by_person:
        yield f"a person holds {_names(holds.by_person)}"
    if holds.upstream_away:
        yield "the upstream is away: nothing is promoted until it answers"
    if untaken:
        yield f"{untaken} items wait and no worker takes them"
    if seen.bad_odds < 1 / p.beta or seen.mid_odds < 1 / p.beta_mid:
        yield (
            f"{seen.good} of {seen.units} records completed; {clean_missing(seen, p)} more clean ones are needed"
        )
    if seen.units < p.records_min:
        yield f"{seen.good} of {seen.units} records completed; the environment asks for {p.records_min}"
    if seen.rate is not None and seen.rate < p.ok:
        yield f"{seen.rate:.1%} of {seen.units} records completed, below {p.ok:.0%}"
    for doubt in doubts:
        yield (
            f"{_names([doubt.stream])}: odds {doubt.odds:.0f} against a healthy release, "
            f"{doubt.threshold:.0f} roll back"
        )
    # In a fixed order: which type was told first is no fact.
    for entity, standing in sorted(units.standing.items()):
        failed, records = len(standing.failed), len(standing.failed) + len(standing.completed)
        if standing.failures and not standing.successes:
            yield f"{entity}: none of {records} records completed"
        elif failed >= RECORDS_FAILED and 2 * failed >= records:
            yield f"{entity}: {failed} of {records} records failed when they last came"
    if units.timed and wilson_lower(units.slower / units.timed, units.timed) > SLOW_SHARE:
        yield f"{units.slower} of {units.timed} took longer than 99 of 100 did on the day before"
    if holds.quotas:
        yield f"the gate holds {_names(holds.quotas)} until its probes complete"


def _names(streams: Collection[str]) -> str:
    if POOLED in streams or len(streams) > NAMES_MAX:
        return "all types"
    return ", ".join(sorted(streams))
