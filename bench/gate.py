"""How well a gate decides: other tools' rules and ours on the same streams, in one table.

    python bench/gate.py [--seeds 3] [--verbose]

The streams are made here from fixed seeds. Damage and delay are ratios to the least that any gate with this risk must
pay, so they compare across machines. Prints the table and keeps it in docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import Parameters
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/gate.py -->", "<!-- end of the run of bench/gate.py -->"
HEADS = ("rule", "false rollback", "wrong promotion", "missed", "promoted", "damage", "delay", "held")


def policy(header: Mapping[str, Any]) -> Ours:
    """Our gate for one stream, made from its header."""
    return Ours(header)


class Ours:
    """The project's gate as a policy: it sees events, is asked every ten seconds, and may hold the intake."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.watch = float(header.get("watch_s", 1800.0))
        parameters = Parameters(watch_s=self.watch, deadline_s=float(header.get("deadline_s", 60.0)))
        self.gate = Gate(header["segments"], day_before(header.get("baseline", {})), parameters)
        self.observe = self.gate.observe
        self.throttled = self.gate.throttled

    def decide(self, now: float) -> tuple[str, str, dict[str, Any]]:
        """The verdict in the words of the streams."""
        judgement = self.gate.decide(now)
        match judgement.finding:
            case Finding.UNHEALTHY:
                action = "ROLLBACK"
            case Finding.HEALTHY:
                action = "PROMOTE"
            case _:
                action = "CONTINUE" if now < self.watch else "HOLD"
        return action, judgement.sentence, judgement.inputs


def day_before(baseline: Mapping[str, Any]) -> DayBefore:
    """The day before, from a header."""
    types = {
        name: TypeBefore(
            units=day["units"],
            ok=day["ok"],
            fingerprints=day.get("fingerprints", {}),
            waited=day.get("waited", 0.0),
            latency_s=tuple(day["latency_s"]) if "latency_s" in day else None,
        )
        for name, day in baseline.get("types", {}).items()
    }
    return DayBefore(
        units=baseline.get("items", 0),
        ok=baseline.get("ok", 1.0),
        types=types,
        wait_p99_s=baseline["wait_s"][1] if "wait_s" in baseline else None,
    )


def row(name: str, make: Callable[[Mapping[str, Any]], Any], seeds: int, *, verbose: bool) -> list[str]:
    """One line of the table: a rule on all streams."""
    # Here, because whoever imports `policy` alone has not this folder on the path.
    from _shapes import limits, shapes
    from _streams import play_to_the_end

    counts = dict.fromkeys(
        ("healthy", "false", "promoted", "wrong", "unfit", "bad", "missed", "degraded", "held"), 0.0
    )
    damages, delays = [], []
    for shape in shapes():
        for seed in range(seeds):
            outcome = play_to_the_end(shape, seed, make)
            hit = outcome.action == "ROLLBACK" and outcome.at >= shape.onset
            if verbose:
                print(f"{name}: {shape.name}, {shape.rate:g}/min, seed {seed}: {outcome}")
            if shape.truth == "bad":
                damage, delay = limits(shape)
                counts["bad"] += 1
                counts["missed"] += not hit
                counts["false"] += outcome.action == "ROLLBACK" and not hit
                damages.append((outcome.damaged + 1) / (damage + 1))
                delays.append(max(outcome.at - shape.onset, 1.0) / delay)
            else:
                counts["healthy"] += shape.truth == "healthy"
                counts["false"] += outcome.action == "ROLLBACK" and shape.truth != "degraded"
            counts["unfit"] += shape.truth != "healthy"
            counts["wrong"] += outcome.action == "PROMOTE" and shape.truth != "healthy"
            counts["promoted"] += outcome.action == "PROMOTE" and shape.truth == "healthy"
            counts["held"] += outcome.held_minutes if shape.truth == "healthy" else 0
    return [
        name,
        f"{counts['false']:.0f} of {counts['healthy']:.0f}",
        f"{counts['wrong']:.0f} of {counts['unfit']:.0f}",
        f"{counts['missed']:.0f} of {counts['bad']:.0f}",
        f"{counts['promoted']:.0f} of {counts['healthy']:.0f}",
        f"{_mean(damages):.2f}",
        f"{_mean(delays):.2f}",
        f"{counts['held'] / max(counts['healthy'], 1):.0f}",
    ]


def _mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 1.0


def look_ms(hours: float = 22.0) -> tuple[float, float]:
    """The mean and the longest processor time of a look in the last quarter of an hour, after *hours* at 60/min."""
    from _streams import Shape, header, play

    shape = Shape(name="a day", truth="healthy", minutes=hours * 60, failing=0.03)
    ours, took = Ours({**header(shape), "watch_s": 1e9}), list[float]()

    class Timed:
        observe, throttled = ours.observe, ours.throttled

        def decide(self, now: float) -> tuple[str, str, Any]:
            start = time.process_time()
            look = ours.decide(now)
            took.append(1000 * (time.process_time() - start))
            return look

    play(shape, 1, Timed())
    last = took[-90:]
    return sum(last) / len(last), max(last)


def table(rows: Sequence[Sequence[str]]) -> str:
    """As in Markdown."""
    widths = [max(len(cell) for cell in column) for column in zip(HEADS, *rows, strict=True)]
    lines = [HEADS, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def main() -> None:
    """Run, print and keep."""
    from _field import RULES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="streams of each shape")
    parser.add_argument("--verbose", action="store_true", help="a line for each stream")
    asked = parser.parse_args()
    rules: dict[str, Callable[[Mapping[str, Any]], Any]] = {**RULES, "the gate": policy}
    text = table([row(name, make, asked.seeds, verbose=asked.verbose) for name, make in rules.items()])
    mean, longest = look_ms()
    text += (
        f"\n\nOne look after 22 hours at 60/min: {mean:.1f} ms of processor time, {longest:.1f} ms at most."
    )
    print(text)
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    if begin:
        PAGE.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
