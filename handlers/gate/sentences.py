"""What the gate says: one sentence of at most 25 words, with its numbers."""

from __future__ import annotations

from handlers.gate.blocks import HARD, SOFT, WAITS
from handlers.gate.odds import likely_onset
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.promotion import Proof
from handlers.gate.weigh import Weighed

_FAILED = {
    SOFT: "failed",
    HARD: "failed beyond retry",
    WAITS: "waited in vain for a parent",
}
MILLION = 1_000_000


def stream_name(stream: str) -> str:
    """A stream in words."""
    return "all types" if stream == POOLED else stream


def breach(weighed: Weighed, parameters: Parameters, part: float) -> str:
    """Why a release is rolled back. *part* is the share of the risk that the stream and track have."""
    onset = likely_onset(weighed.units, weighed.bad, weighed.q, forgive=weighed.forgiven)
    failed, units = sum(weighed.bad[onset:]), sum(weighed.units[onset:])
    since = onset * parameters.block_s / 60
    number = weighed.odds * part
    chance = f"{number:,.0f}" if number < MILLION else "a million"
    better = "healthy" if weighed.q <= 1 - parameters.ok + 1e-9 else "equally good"
    return (
        f"{stream_name(weighed.stream)}: {failed} of {units} records since minute {since:g} "
        f"{_FAILED[weighed.track]}; of {better} releases fewer than 1 in {chance} would"
    )


def instant(entity: str, error: str) -> str:
    """Why one error is enough."""
    return f"{entity}: {' '.join(error.split()[:14])}: one such error is a breach"


def passed(seen: Proof, parameters: Parameters) -> str:
    """Why a release is promoted."""
    return (
        f"{seen.good} of {seen.units} records completed; a release at or below {parameters.bad:.0%} "
        f"would pass less than once in {1 / parameters.beta:.0f}"
    )


def watching(seen: Proof, left: float) -> str:
    """Why a watch that is not over says nothing yet."""
    time = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f"{seen.good} of {seen.units} records completed; {time} of the watch are left"


def more_needed(seen: Proof, missing: int) -> str:
    """Why too little was seen."""
    return f"{seen.good} of {seen.units} records completed; {missing} more clean ones are needed"


def to_be_confirmed(weighed: Weighed, seconds: float) -> str:
    """Why a breach does not count yet."""
    return (
        f"{stream_name(weighed.stream)}: a breach at the first look after a while without one; "
        f"it counts if it shows in {seconds:.0f} s again"
    )


NO_DATA = "no live event was taken: no data is never a pass"
STARTING = "the released workers are being started, and have taken no live event yet"
AWAY = "the upstream is away: nothing is judged until it answers"


def source_down(why: str) -> str:
    """Why nothing is known. The cause is cut to fit."""
    return f"nothing could be measured: {' '.join(why.split()[:18])}"
