"""The arithmetic of a decision, so that it can be redone by hand, and whether it still gives the stored numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from handlers.gate.again import SEQUENTIAL, Again, Replayed, Stored, close
from handlers.gate.blocks import HARD, SOFT, WAITS
from handlers.gate.explain_rules import rule_lines
from handlers.gate.odds import GAINS, terms
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.promotion import GOOD_RATES, health_odds
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding
from handlers.gate.weigh import weigh_again

_NUMBER = re.compile(r"\d[\d.,]*")


def kind_of(look: Stored) -> tuple[Finding, str]:
    """The finding and the sentence without its numbers: looks of one kind say the same."""
    return look.finding, _NUMBER.sub("#", look.sentence).replace(" min ", " s ")


def worth_showing(looks: Sequence[Stored]) -> set[int]:
    """The numbers of the looks that tell something: another kind than before, each breach, the last of each rule."""
    chosen = set[int]()
    before: dict[str, tuple[Finding, str]] = {}
    last: dict[str, int] = {}
    for look in looks:
        if look.finding is Finding.UNHEALTHY or kind_of(look) != before.get(look.rule):
            chosen.add(look.number)
        # Drain and live traffic are looked at in turns: what changes is what the same rule says.
        before[look.rule], last[look.rule] = kind_of(look), look.number
    return chosen | set(last.values())


def explain(again: Again, look: Replayed) -> dict[str, Any]:
    """Everything about one look, for JSON. *again* has just judged it."""
    stored = look.stored
    about = {
        "look": stored.number,
        "rule": stored.rule,
        "finding": stored.finding,
        "sentence": stored.sentence,
        "same": look.is_same,
        "now_says": None if look.is_same else f"{look.judgement.finding}: {look.judgement.sentence}",
    }
    if stored.rule != SEQUENTIAL or again.gate is None:
        return about | {"seen": stored.inputs["seen"], "limits": stored.inputs["limits"]}
    return about | {
        "minute": (stored.now or 0.0) / 60,
        "left_s": stored.inputs.get("left"),
        "weighed": _weighed(again.gate, stored),
        "proof": _proof(
            again.gate.parameters, stored.inputs.get("proof"), look.judgement.inputs.get("proof")
        ),
        "reasons": list(stored.inputs.get("reasons") or ()),
        "held": stored.inputs.get("held") or {},
    }


def _weighed(gate: Gate, stored: Stored) -> dict[str, Any] | None:
    """The stream that decides, or is nearest to it: its table, and the odds made again of it."""
    told = stored.inputs.get("weighed")
    if told is None:
        return None
    p, inputs, stream, track = gate.parameters, told, told["stream"], told["track"]
    if not told["blocks"] and stored.now is not None:
        # Only a breach is stored with its table. For the others it is counted again from the facts.
        counted = gate.weighed(stream, track, stored.now)
        if counted is not None:
            inputs = counted.inputs() | {"q": told["q"], "q_mid": told["q_mid"]}
    value, mid = weigh_again(inputs)
    part = {SOFT: p.soft_share, HARD: p.hard_share, WAITS: p.waits_share}[track]
    share = p.share(stream, len(gate.types))
    before = gate.before.of(stream)
    return {
        "stream": stream,
        "track": track,
        "block_s": p.block_s,
        "blocks": inputs["blocks"],
        "forgiven_blocks": told["forgiven_blocks"],
        "q": told["q"],
        "q_mid": told["q_mid"],
        "bar": 1 - p.ok,
        "bar_mid": 1 - p.tolerable,
        "before": {"ok": before.ok, "units": before.units},
        "gains": _gains(inputs),
        "odds": {"stored": told["odds"], "again": value, "same": close(value, told["odds"])},
        "odds_mid": {"stored": told["odds_mid"], "again": mid, "same": close(mid, told["odds_mid"])},
        "threshold": _threshold(told["threshold"], p.alpha, share, part),
        "threshold_mid": _threshold(told["threshold_mid"], p.alpha_mid, share, part),
    }


def _gains(inputs: Mapping[str, Any]) -> list[dict[str, float]]:
    """One row for each alternative: its steps, its largest term, and its sum. The odds are the mean of the sums."""
    units, bad = [0] * inputs["length"], [0] * inputs["length"]
    for block, count, failed in inputs["blocks"]:
        units[block], bad[block] = count, failed
    q, rows = inputs["q"], []
    for gain in GAINS if q < 1 else ():
        found = list(terms(units, bad, q, gain, inputs["forgiven_blocks"]))
        term, block = max(((term, block) for block, term in found), default=(0.0, 0))
        rows.append(
            {
                "gain": gain,
                "q1": q + (1 - q) * gain,
                "failed": math.log((q + (1 - q) * gain) / q),
                "good": math.log(1 - gain),
                "onset": block,
                "largest": term,
                "sum": sum(term for _, term in found),
            }
        )
    return rows


def _threshold(stored: float, alpha: float, share: float, part: float) -> dict[str, Any]:
    again = 1 / (alpha * share * part)
    return {
        "stored": stored,
        "again": again,
        "same": close(stored, again),
        "alpha": alpha,
        "share": share,
        "track_share": part,
    }


def _proof(
    p: Parameters, told: Mapping[str, Any] | None, again: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """F at both bars, from all records and from those outside the worst window; the larger one counts."""
    if told is None:
        return None
    found: dict[str, Any] = dict(told)
    rest = (found.get("rest_good", 0), found.get("rest_units", 0), found.get("blocks", 1))
    for name, q, needed in (
        ("bad_odds", 1 - p.bad, 1 / p.beta),
        ("mid_odds", 1 - p.tolerable, 1 / p.beta_mid),
    ):
        whole = health_odds(found["good"], found["units"], q)
        without = health_odds(rest[0], rest[1], q) / rest[2]
        found[name] = {
            "q": q,
            "stored": told[name],
            "whole": whole,
            "without_worst": without,
            "again": max(whole, without),
            "needed": needed,
            "same": close(max(whole, without), told[name]),
        }
    found["ok"] = p.ok
    found["counted_again"] = None if again is None else (again["good"], again["units"])
    return found


def lines(about: Mapping[str, Any]) -> Iterator[str]:
    """The explanation of one look for people."""
    minute = f"minute {about['minute']:.1f}  " if "minute" in about else ""
    yield f"look {about['look']}  {minute}{about['rule']}  {about['finding']}: {about['sentence']}"
    if about["same"]:
        yield "  judged again from the stored inputs: same"
    else:
        yield f"  judged again from the stored inputs: DIFFERS, {about['now_says']}"
    if "seen" in about:
        yield from rule_lines(about["rule"], about["seen"], about["limits"])
        return
    if about["weighed"] is not None:
        yield from _weighed_lines(about["weighed"])
    else:
        yield "  nothing has failed: there is no evidence against the release"
    if about["proof"] is not None:
        yield from _proof_lines(about["proof"])
    for reason in about["reasons"]:
        yield f"  in the way: {reason}"
    held = about["held"]
    if held.get("by_person"):
        yield f"  held by a person: {', '.join(map(_name, held['by_person']))}"
    if held.get("by_gate"):
        quotas = ", ".join(f"{_name(stream)} {quota}" for stream, quota in held["by_gate"].items())
        yield f"  held by the gate, items in ten seconds: {quotas}"


def _weighed_lines(w: Mapping[str, Any]) -> Iterator[str]:
    yield f"  nearest to a breach: {_name(w['stream'])}, track {w['track']}"
    for name, q, bar in (("q ", w["q"], w["bar"]), ("q'", w["q_mid"], w["bar_mid"])):
        why = (
            f"the day before, {w['before']['ok']:.1%} of {w['before']['units']} units succeeded"
            if q > bar + 1e-9
            else f"1 - {1 - bar:g}"
        )
        yield f"    {name} = {q:.6g} ({why})"
    yield f"    block k   from minute   units n   failed b   (blocks of {w['block_s']:g} s with units)"
    for block, units, failed in w["blocks"]:
        yield f"    {block:>7}   {block * w['block_s'] / 60:>11.1f}   {units:>7}   {failed:>8}"
    if w["forgiven_blocks"]:
        yield f"    deleted: the {w['forgiven_blocks']} blocks in a row, from k on, with the largest sum of l"
    yield "    l(k) = b * A + (n - b) * B;  A = log(q1 / q), B = log(1 - g), q1 = q + (1 - q) * g"
    yield "    R(k) = l(k) + ... + l(now), less the deleted blocks if that is larger than 0"
    yield "    w(0) = 1/2, w(1..60) = 1/240, w(61..2880) = 1/11280;  sum of w(k) * exp(R(k)) over k"
    yield "        g       q1         A          B   largest at k   w(k)*exp(R(k))        sum"
    for row in w["gains"]:
        yield (
            f"    {row['gain']:.3f}   {row['q1']:.4f}   {row['failed']:.5f}   {row['good']:>8.5f}"
            f"   {row['onset']:>12}   {row['largest']:>14.6g}   {row['sum']:>8.6g}"
        )
    for name, value, threshold, alpha in (
        ("E(q) ", w["odds"], w["threshold"], "alpha"),
        ("E(q')", w["odds_mid"], w["threshold_mid"], "alpha_mid"),
    ):
        mean = ", the mean of the sums" if alpha == "alpha" else ", the same with q' in the place of q"
        yield f"    {name} = {value['again']:.6g}{mean}; stored {value['stored']:.6g}: {_same(value)}"
        if alpha == "alpha_mid" and not value["stored"]:
            yield "            it is asked only where E(q) reaches its threshold"
        yield (
            f"            threshold {threshold['again']:.6g} = 1 / ({alpha} {threshold['alpha']:g} * share"
            f" {threshold['share']:.4g} * track {threshold['track_share']:g}): {_same(threshold)}"
        )
    t = w["threshold"]
    if w["odds"]["again"] >= t["again"]:
        number = w["odds"]["again"] * t["share"] * t["track_share"]
        yield f"    the sentence's number: E(q) * share * track = {number:,.6g}"


def _proof_lines(p: Mapping[str, Any]) -> Iterator[str]:
    yield f"  promotion: {p['good']} of {p['units']} records completed in time"
    yield "    F(q) = mean over r of ((1 - r) / (1 - q))^good * (r / q)^others, r = " + ", ".join(
        f"{rate:g}" for rate in GOOD_RATES
    )
    for name in ("bad_odds", "mid_odds"):
        f = p[name]
        yield (
            f"    F({f['q']:.0%}) = {f['again']:.6g}, of {f['needed']:g} needed; stored {f['stored']:.6g}: {_same(f)}"
        )
        if f["without_worst"] > f["whole"]:
            yield (
                f"            without the worst window: {p['rest_good']} of {p['rest_units']} records,"
                f" divided by {p['blocks']} blocks; with it {f['whole']:.6g}"
            )
    if p["rate"] is not None and p.get("rest_ended"):
        yield (
            f"    rate {p['rate']:.2%} = {p['rest_good']} / {p['rest_ended']} ended without the worst window;"
            f" {p['ok']:.0%} are needed"
        )


def _same(value: Mapping[str, Any]) -> str:
    return "same" if value["same"] else "DIFFERS"


def _name(stream: str) -> str:
    return "all types" if stream == POOLED else stream
