"""The streams of the gate's benchmark, and the least that any gate must pay on them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from _streams import REPEATS, TYPES, Shape

BLIP = 120.0
RISK = 0.01
BAR = 0.05


def shapes() -> Iterator[Shape]:
    """Healthy releases that look bad for a while, and bad ones that look healthy for a while."""
    for rate in (2.0, 20.0, 120.0):
        yield Shape(name="healthy, 99.5 %", truth="healthy", rate=rate)
        yield Shape(name="bad, 0 % succeed", truth="bad", rate=rate, broken=1.0)
        yield Shape(name="bad, 50 % succeed", truth="bad", rate=rate, broken=0.5)
    for rate in (20.0, 120.0):
        yield Shape(name="healthy, 97 %", truth="healthy", rate=rate, failing=0.03)
        yield Shape(name="healthy, exactly 95 %", truth="healthy", rate=rate, failing=0.05)
        yield Shape(name="a blip of 2 min", truth="healthy", rate=rate, blips=((700, BLIP, 1.0),))
        yield Shape(name="a blip of 2 min, 40 %", truth="healthy", rate=rate, blips=((700, BLIP, 0.4),))
        yield Shape(name="degraded, 90 %", truth="degraded", rate=rate, failing=0.10)
        yield Shape(name="bad, 79 % succeed", truth="bad", rate=rate, broken=0.21)
        yield Shape(name="bad, 70 % succeed", truth="bad", rate=rate, broken=0.30)
        yield Shape(name="bad from minute 12", truth="bad", rate=rate, broken=0.5, onset=720)
        yield Shape(name="workers stall", truth="bad", rate=rate, stall=1.0, onset=300, hard=False)
        yield Shape(name="nobody takes", truth="bad", rate=rate, idle=True, onset=300, hard=False)
    yield Shape(name="half of the workers stall", truth="bad", stall=0.5, onset=300, hard=False)
    yield Shape(name="bad, 50 %, a retry cures it", truth="bad", broken=0.5, hard=False)
    yield Shape(name="INVOICE dead", truth="bad", broken=1.0, types=("INVOICE",))
    yield Shape(name="CREDITNOTE dead", truth="bad", broken=1.0, types=("CREDITNOTE",))
    yield Shape(name="known records", truth="healthy", rate=30, known=40, blips=((900, BLIP, 1.0),))
    yield Shape(name="known records die", truth="bad", rate=30, known=30, broken=1.0, onset=720, hard=False)
    yield Shape(name="no traffic", truth="hold", rate=0)


def divergence(a: float, b: float) -> float:
    """Kullback and Leibler's, of two chances: how much one observation of a tells against b, in nats."""
    return sum(x * math.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)


def limits(shape: Shape) -> tuple[float, float]:
    """The damage and the delay that no gate with this risk can go below, on average (Wald)."""
    share = sum(TYPES[entity] for entity in shape.types) if shape.types else 1.0
    failing = 1.0 if shape.stall or shape.idle else shape.broken
    units = max(math.log(1 / RISK) / divergence(failing, BAR), 1.0)
    lag = 60.0 if shape.stall or shape.idle else 15.0
    rate = shape.rate * (1 - REPEATS) * share / 60
    blip = 0.0 if shape.hard and not (shape.stall or shape.idle) else BLIP
    return max(units * failing, 1.0), lag + units / rate + blip
