"""A file of events or of a stream: what is read of it, what is refused and why, and how it is judged."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from handlers.gate.again import Numbers
from handlers.gate.sequential import Gate
from handlers.gate.stream import Decision, judge_file
from handlers.gate.told_file import LINE_BYTES_MAX, BadLineError, read
from handlers.gate.values import Finding

HEADER = {
    "segments": ["PRODUCT", "INVOICE"],
    "deadline_s": 60,
    "watch_s": 600,
    "baseline": {"ok": 0.99, "items": 900},
}
ARRIVE = {"ev": "arrive", "t": 1, "id": 1, "seg": "PRODUCT", "key": "k", "arrived": 0.5}
ROW = [1000, "k", 0, 2000, 5000, 0, 10, 1, 0, 0]


def lines(*values: Any) -> list[bytes]:
    return [value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n" for value in values]


def traffic(*, end: float = 600, every: float = 5, dies: float = math.inf) -> list[dict[str, Any]]:
    """New records that complete after a second, and die from *dies* on."""
    events: list[dict[str, Any]] = []
    for number in range(int(end / every)):
        at = number * every
        about = {"id": number, "seg": "PRODUCT", "key": f"k{number}", "kind": "live"}
        events.append({"ev": "arrive", "t": at, "arrived": at, **about})
        bad = {"hard": True, "fingerprint": "rate: no such field"} if at >= dies else {}
        events.append({"ev": "dead" if bad else "done", "t": at + 1, "id": number, **bad})
    return events


def stream(*, failing: int = 0, end: float = 900, env: dict[str, Any] | None = None) -> list[Any]:
    """A stream of one item each five seconds, of which the release breaks one in *failing* (0: none)."""
    chance = random.Random(7)
    rows = []
    for at in range(0, int(end), 5):
        breaks = int(bool(failing) and at % (5 * failing) == 0)
        rows.append([at * 1000, f"k{at}", at % 2, 2000, 5000, breaks, chance.randrange(9999), 1, 0, 0])
    return [HEADER | {"T_s": end, "env": env or {}}, *rows]


def judged(*values: Any, numbers: Numbers | None = None) -> list[Decision]:
    return list(judge_file(read(lines(*values)), numbers))


def test_good_events_pass_at_the_end_of_the_watch() -> None:
    """Sixty looks, the last of which passes; with and without a header."""
    found = judged(HEADER, *traffic())
    assert (len(found), found[-1].now, found[-1].judgement.finding) == (60, 600, Finding.HEALTHY)
    found = judged(*traffic(end=1800))
    assert (found[-1].now, found[-1].judgement.finding) == (1800, Finding.HEALTHY)


def test_bad_events_roll_back_at_the_look_that_sees_it() -> None:
    """Nothing is read after the decision, and the look before it did not know."""
    found = judged(HEADER, *traffic(dies=300))
    assert found[-1].judgement.finding is Finding.UNHEALTHY
    assert 300 < found[-1].now <= 400
    assert all(not each.ends for each in found[:-1])


def test_a_file_is_judged_as_the_gate_judges_live() -> None:
    """The same finding and sentence at every look as a gate that is told the events as they come."""
    events = traffic(dies=300)
    told = list(events)
    gate = Gate(("PRODUCT", "INVOICE"), read(lines(HEADER)).before, slow_start=False)
    for each in judged(HEADER | {"watch_s": 1800}, *events):
        while told and told[0]["t"] < each.now:
            gate.observe(told.pop(0))
        assert gate.verdict(each.now) == each.judgement


def test_a_file_without_traffic_decides_nothing() -> None:
    """A header alone, and events of kinds that nobody knows: no data is never a pass."""
    for values in ([HEADER], [HEADER, {"ev": "tea", "t": 3}], [{"ev": "tea", "t": 3}]):
        found = judged(*values)
        assert found[-1].judgement.finding is Finding.NO_DATA
        assert not found[-1].ends


def test_unknown_events_are_ignored_and_counted() -> None:
    """More kinds may come."""
    told = read(
        lines(HEADER, {"ev": "tea", "t": 1}, {"ev": 5, "t": 1}, {"ev": "tea", "t": 2}, ARRIVE | {"t": 3})
    )
    assert told.unknown == {"tea": 2, "5": 1}
    assert len(told.events) == 1


def test_a_stream_is_played_under_the_gates_own_holds() -> None:
    """Rows with what would happen: a good one passes, a bad one is rolled back within a minute, at its probes."""
    good, bad = judged(*stream()), judged(*stream(failing=1))
    assert (good[-1].judgement.finding, good[-1].now) == (Finding.HEALTHY, 600)
    assert bad[-1].judgement.finding is Finding.UNHEALTHY
    assert bad[-1].now <= 60


def test_a_bad_stream_meets_no_more_items_than_the_gate_lets_through() -> None:
    """Ten a second come in: three are taken in the first ten seconds, and decide."""
    rows = [[at * 100, f"k{at}", 0, 2000, 5000, 1, 0, 1, 0, 0] for at in range(1000)]
    found = judged(HEADER | {"env": {}}, *rows)
    assert found[0].judgement.inputs["held"]["by_gate"] == {"*": 3}
    assert found[-1].judgement.sentence.startswith("all types: 3 of 3 records since minute 0 failed")


@pytest.mark.parametrize(
    ("env", "finding"),
    [
        ({"outages": [[100, 100, 1.0]]}, Finding.HEALTHY),  # one blip of two minutes is forgiven
        ({"stalls": [[100, 1e9, 1.0]]}, Finding.UNHEALTHY),
        ({"idle": [[100, 1e9, True, "*"]]}, Finding.UNHEALTHY),
        ({"holds": [[100, 300, "*", 0]]}, Finding.HEALTHY),
        ({"outages": [[100, 300, 1.0]], "probe": [[110, 0], [390, 1]]}, Finding.HEALTHY),
    ],
)
def test_the_surroundings_of_a_stream_are_played(env: dict[str, Any], finding: Finding) -> None:
    """Outages, stalls, workers that take nothing, a person's holds, and what a probe says of the upstream."""
    found = judged(*stream(env=env, end=2400))
    assert found[-1].judgement.finding is finding


def test_a_parent_that_never_comes_rolls_back_and_one_that_comes_does_not() -> None:
    """Children wait for their parent's end, or in vain."""
    header, *rows = stream()
    late = [
        [row[0] + 1000, f"c{at}", 1, 2000, 5000, 0, 5, 1, 0, 0, {"parent": row[1]}]
        for at, row in enumerate(rows)
    ]
    both = sorted(rows + late, key=lambda row: row[0])
    assert judged(header, *both)[-1].judgement.finding is Finding.HEALTHY
    in_vain = [[*row[:10], {"parent": None}] for row in late]
    both = sorted(rows + in_vain, key=lambda row: row[0])
    assert judged(header, *both)[-1].judgement.finding is Finding.UNHEALTHY


def test_other_numbers_judge_a_file_otherwise() -> None:
    """One in three fails: rolled back at the usual bars, and not where 60 % are good."""
    values = stream(failing=3, end=2400)
    assert judged(*values)[-1].judgement.finding is Finding.UNHEALTHY
    lax = judged(*values, numbers=Numbers(ok=0.6, tolerable=0.5, bad=0.3))
    assert (lax[-1].judgement.finding, lax[-1].now) == (Finding.INCONCLUSIVE, 2400)
    with pytest.raises(ValueError, match="bad < tolerable < ok"):
        judged(*values, numbers=Numbers(bad=0.99))


BAD: list[tuple[str, Iterable[Any], int, str]] = [
    ("empty", [], 0, "empty"),
    ("blank lines", [b"\n", b"  \n"], 0, "empty"),
    ("not JSON", [b"ev,t,id\n"], 1, "not JSON at column 1"),
    ("half a line", [ARRIVE, b'{"ev": "done", "t"'], 2, "not JSON"),
    ("binary", [b"\x7fELF\x02\x01\xff\xfe"], 1, "not text in UTF-8"),
    ("NUL", [b"\x00\x00\x00"], 1, "not JSON"),
    ("a long line", [b"[" + b" " * LINE_BYTES_MAX + b"]"], 1, "longer than 1,048,576 bytes"),
    ("nested", [b"[" * 100_000], 1, "nested too deeply"),
    ("a number of a million digits", [b'{"ev": "done", "t": ' + b"9" * 500_000 + b"}"], 1, "too long"),
    ("a word", [b'"hello"\n'], 1, "neither an event"),
    ("a number", [b"7\n"], 1, "neither an event"),
    ("NaN", [b'{"ev": "arrive", "t": NaN}'], 1, "NaN is not a number"),
    ("infinity", [b'{"ev": "arrive", "t": Infinity}'], 1, "Infinity is not a number"),
    ("overflow", [b'{"ev": "arrive", "t": 1e999}'], 1, "`t` must be a number of seconds"),
    ("no time", [{"ev": "arrive"}], 1, "`t` must be a number of seconds, not 'NoneType'"),
    ("a time as text", [ARRIVE | {"t": "1"}], 1, "`t` must be a number"),
    ("a time as truth", [ARRIVE | {"t": True}], 1, "`t` must be a number"),
    ("milliseconds since 1970", [ARRIVE | {"t": 1.7e12}], 1, "between -2.592e+06 and 86400 seconds"),
    (
        "times that go back",
        [ARRIVE | {"t": 5}, ARRIVE | {"t": 4, "id": 2}],
        2,
        "goes back in time, from 5 to 4",
    ),
    ("an unknown type", [HEADER, ARRIVE | {"seg": "TEA"}], 2, "the type 'TEA' is not among the `segments`"),
    ("no type", [ARRIVE | {"seg": None}], 1, "'arrive' needs `seg`"),
    ("no key", [ARRIVE | {"key": None}], 1, "'arrive' needs `key`"),
    ("no id", [ARRIVE | {"id": None}], 1, "'arrive' needs `id`"),
    ("an id that is a list", [ARRIVE | {"id": [1]}], 1, "'arrive' needs `id`"),
    ("an unknown kind", [ARRIVE | {"kind": "dream"}], 1, "`kind` must be one of live, replay, synthetic"),
    ("came in later than taken", [ARRIVE | {"arrived": 9}], 1, "`arrived` must lie between"),
    ("an end without a begin", [{"ev": "done", "t": 1, "id": 7}], 1, "no line before says that it came in"),
    ("a hold of nothing", [HEADER, {"ev": "held", "t": 1}], 2, "'held' needs `seg`"),
    ("an upstream without a word", [{"ev": "upstream", "t": 1}], 1, "needs `up`"),
    ("an intake without quotas", [{"ev": "intake", "t": 1, "quotas": 3}], 1, "needs `quotas`"),
    ("two headers", [HEADER, HEADER], 2, "only the first line may be a header"),
    ("a header at the end", [ARRIVE, HEADER], 2, "only the first line may be a header"),
    ("a header without types", [{"watch_s": 600}], 1, "`segments`"),
    ("no types", [HEADER | {"segments": []}], 1, "`segments`"),
    ("a type that is a number", [HEADER | {"segments": [1]}], 1, "`segments`"),
    ("a type twice", [HEADER | {"segments": ["A", "A"]}], 1, "another type"),
    ("all types as a type", [HEADER | {"segments": ["*"]}], 1, "another type"),
    ("no deadline", [HEADER | {"deadline_s": 0}], 1, "`deadline_s` must lie between"),
    ("a watch of a year", [HEADER | {"watch_s": 3e7}], 1, "`watch_s` must lie between"),
    ("a baseline that is none", [HEADER | {"baseline": {"ok": 95}}], 1, "95 is no share between 0 and 1"),
    ("a baseline of text", [HEADER | {"baseline": "good"}], 1, "the baseline cannot be used"),
    ("a type without units", [HEADER | {"baseline": {"types": {"A": {}}}}], 1, "'units' is missing"),
    (
        "short latencies",
        [HEADER | {"baseline": {"types": {"A": {"units": 1, "ok": 1, "latency_s": [1]}}}}],
        1,
        "base",
    ),
    ("surroundings that are none", [HEADER | {"env": [1]}], 1, "`env` must be an object"),
    ("an outage that is none", [HEADER | {"env": {"outages": [[1, 2]]}}], 1, "list of 3 values"),
    ("outages that are none", [HEADER | {"env": {"outages": 3}}], 1, "`env.outages` must be a list"),
    (
        "a hold of an unknown type",
        [HEADER | {"env": {"holds": [[1, 2, "TEA", 3]]}}],
        1,
        "`env.holds` has 'TEA'",
    ),
    ("a row without a header", [ROW], 1, "needs a header"),
    ("a row among events", [HEADER, ARRIVE, ROW], 3, "a row of a stream"),
    ("an event among rows", [HEADER, ROW, ARRIVE], 3, "either events or rows"),
    ("a short row", [HEADER, ROW[:9]], 2, "10 or 11 values"),
    ("a row with text", [HEADER, [*ROW[:3], "soon", *ROW[4:]]], 2, "lat_ok_ms must be a number, not 'soon'"),
    ("a row of an unknown type", [HEADER, [*ROW[:2], 9, *ROW[3:]]], 2, "the type must be below 2"),
    ("a row that ends before it begins", [HEADER, [*ROW[:3], -5, *ROW[4:]]], 2, "out of range"),
    ("rows that go back", [HEADER, ROW, [0, *ROW[1:]]], 3, "goes back in time"),
    ("a row with half a type", [HEADER, [*ROW[:2], 0.5, *ROW[3:]]], 2, "the type must be below"),
    ("a row with more", [HEADER, [*ROW, 5]], 2, "must be an object"),
]


@pytest.mark.parametrize(
    ("values", "number", "what"), [each[1:] for each in BAD], ids=[each[0] for each in BAD]
)
def test_a_bad_file_is_refused_with_its_line(values: list[Any], number: int, what: str) -> None:
    """One sentence: which line, what is wrong, and what it must be."""
    with pytest.raises(BadLineError, match=r"(?s).*") as raised:
        read(lines(*values))
    assert (raised.value.number, what in str(raised.value)) == (number, True), str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_mark_of_byte_order_is_no_error() -> None:
    """Some editors write one."""
    first, *rest = lines(HEADER, *traffic())
    assert len(read([b"\xef\xbb\xbf" + first, *rest]).events) == 240
