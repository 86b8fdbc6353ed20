"""Reading a file of events or of a stream, line by line. Pure: it is given the lines, and says which one is wrong.

A file of events has one event a line, as `Gate.observe` takes them, and may begin with a header. A stream file has a
header and then one row an item, which says what would happen to the item: `stream` plays it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from handlers.gate.day_before import DayBefore, TypeBefore
from handlers.gate.parameters import POOLED, Parameters
from handlers.gate.traffic import ORDER, STARTED, STARTING

LINE_BYTES_MAX = 1024 * 1024
SECONDS_MAX = Parameters.guard_s
"""A release is judged for a day. A larger time is no number of seconds since the switch."""
BEFORE_SECONDS_MAX = 30 * 86400.0
"""What came in before the switch is at most so old."""
KINDS = ("live", "replay", "synthetic")
_COMES, _STREAMS = {"queued", "arrive"}, {"held", "released"}
_NO_ITEM = {"upstream", "intake", "unwatched", STARTING, STARTED, *_STREAMS}
ENV = (("outages", 3, -1), ("stalls", 3, -1), ("probe", 2, -1), ("holds", 4, 2), ("idle", 4, 3))
"""What a stream may say of its surroundings: how many values each entry has, and which of them is a type."""
ROW = "arrive_ms, key, type, lat_ok_ms, lat_bad_ms, rel, coin, hard, retries, kind"


class BadLineError(ValueError):
    """A line that cannot be used. *number* is 0 where the file as a whole is wrong."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"line {number}: {what}" if number else what)
        self.number = number


@dataclass(kw_only=True)
class ToldFile:
    """What a file tells."""

    types: tuple[str, ...] = ()
    before: DayBefore = field(default_factory=DayBefore)
    deadline_s: float = Parameters.deadline_s
    watch_s: float = Parameters.watch_s
    end_s: float | None = None
    """How long the stream is."""
    env: Mapping[str, Any] = field(default_factory=dict)
    """What happens around the items of a stream: outages, stalls, holds."""
    events: list[Mapping[str, Any]] = field(default_factory=list)
    rows: list[Sequence[Any]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """Events of kinds that this version does not know. They are ignored."""
    is_stream: bool = False
    """Whether it has rows instead of events."""


def read(lines: Iterable[bytes]) -> ToldFile:
    """Read a whole file. Raises BadLineError with the number of the first line that cannot be used.

    The caller cuts lines at `LINE_BYTES_MAX` bytes and one more, so that a file without lines fills no memory.
    """
    told, has_header, ids, last = ToldFile(), False, set[str](), -math.inf
    for number, raw in enumerate(lines, 1):
        value = _value(number, raw)
        match value:
            case None:
                continue
            case {"ev": _}:
                if told.is_stream:
                    _bad(number, "an event among the rows of a stream; a file has either events or rows")
                at = _event(number, value, told, ids, declared=has_header)
                last = _in_order(number, at, last)
            case dict():
                if has_header or told.events:
                    _bad(number, "an object without `ev`; only the first line may be a header")
                _header(number, value, told)
                has_header, told.is_stream = True, "env" in value or "T_s" in value
            case list():
                if not has_header or told.events:
                    _bad(number, "a row of a stream, which needs a header with `segments` in the first line")
                told.is_stream = True
                last = _in_order(number, _row(number, value, told), last)
            case _:
                _bad(number, 'neither an event ({"ev": …}), nor a header, nor a row of a stream ([…])')
    if not has_header and not told.events and not told.unknown:
        _bad(0, "the file is empty: it must have one event a line")
    if not has_header:
        told.types = tuple(sorted({str(event["seg"]) for event in told.events if _names_a_type(event)}))
    return told


def _value(number: int, raw: bytes) -> Any:
    if len(raw) > LINE_BYTES_MAX:
        _bad(number, f"longer than {LINE_BYTES_MAX:,} bytes: the file must have one event a line")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        _bad(number, "not text in UTF-8: this is no file of events")
    if not text.strip():
        return None
    try:
        return json.loads(text, parse_constant=lambda word: _bad(number, f"{word} is not a number"))
    except json.JSONDecodeError as error:
        _bad(number, f"not JSON at column {error.colno} ({error.msg})")
    except BadLineError:
        raise
    except (RecursionError, ValueError):
        _bad(number, "JSON that is nested too deeply, or has a number that is too long")


def _in_order(number: int, at: float, last: float) -> float:
    if at < last:
        _bad(number, f"goes back in time, from {last:g} to {at:g} s: sort the file by time")
    return at


def _header(number: int, value: Mapping[str, Any], told: ToldFile) -> None:
    segments = value.get("segments")
    if not isinstance(segments, list) or not segments or not all(_is_name(each) for each in segments):
        _bad(number, "a header needs `segments`, the list of the types")
    if len(set(segments)) < len(segments) or POOLED in segments:
        _bad(number, f"each of `segments` must be another type, and none {POOLED!r}")
    told.types = tuple(segments)
    told.deadline_s = _number(number, value, "deadline_s", told.deadline_s, least=1e-3, most=SECONDS_MAX)
    told.watch_s = _number(number, value, "watch_s", told.watch_s, least=0.0, most=SECONDS_MAX)
    if "T_s" in value:
        told.end_s = _number(number, value, "T_s", 0.0, least=0.0, most=SECONDS_MAX)
    told.env = value.get("env") or {}
    _raise_if_no_env(number, told)
    try:
        told.before = day_before(value.get("baseline") or {})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        _bad(number, f"the baseline cannot be used: {what}")


def _raise_if_no_env(number: int, told: ToldFile) -> None:
    if not isinstance(told.env, dict):
        _bad(number, "`env` must be an object")
    streams = {*told.types, POOLED}
    for name, length, of in ENV:
        entries = told.env.get(name, [])
        if not isinstance(entries, list):
            _bad(number, f"`env.{name}` must be a list")
        for each in entries:
            if not isinstance(each, list) or len(each) != length:
                _bad(number, f"each of `env.{name}` must be a list of {length} values")
            for place, value in enumerate(each):
                if not (value in streams if place == of else isinstance(value, bool) or _is_number(value)):
                    _bad(number, f"`env.{name}` has {_cut(value)!r} where a type or a number must be")


def day_before(baseline: Mapping[str, Any]) -> DayBefore:
    """The day before from a header. Raises KeyError, TypeError or ValueError where it is none."""
    types = {}
    for name, day in baseline.get("types", {}).items():
        latency = tuple(float(each) for each in day["latency_s"]) if "latency_s" in day else None
        types[name] = TypeBefore(
            units=_count(day["units"]),
            ok=_share(day["ok"]),
            fingerprints={str(error): _share(share) for error, share in day.get("fingerprints", {}).items()},
            waited=_share(day.get("waited", 0.0)),
            latency_s=(latency[0], latency[1], latency[2]) if latency else None,
        )
    return DayBefore(
        units=_count(baseline.get("items", 0)),
        ok=_share(baseline.get("ok", 1.0)),
        types=types,
        wait_p99_s=float(baseline["wait_s"][1]) if "wait_s" in baseline else None,
    )


def _event(number: int, event: Mapping[str, Any], told: ToldFile, ids: set[str], *, declared: bool) -> float:
    at = _number(number, event, "t", None, least=-BEFORE_SECONDS_MAX, most=SECONDS_MAX)
    kind = event["ev"]
    if kind not in ORDER:
        told.unknown[str(kind)[:40]] += 1
        return at
    if _names_a_type(event):
        seg = event.get("seg")
        if not _is_name(seg):
            _bad(number, f"{kind!r} needs `seg`, the type")
        if declared and seg not in told.types and not (kind in _STREAMS and seg == POOLED):
            _bad(number, f"the type {_cut(seg)!r} is not among the `segments` of the header")
    if kind not in _NO_ITEM:
        _item(number, event, ids)
    if kind == "upstream" and not isinstance(event.get("up"), bool | int):
        _bad(number, "'upstream' needs `up`, true or false")
    if kind == STARTING:
        _number(number, event, "until", None, least=at, most=SECONDS_MAX)
    if kind == "intake" and not isinstance(event.get("quotas"), dict):
        _bad(number, "'intake' needs `quotas`, an object")
    told.events.append(event)
    return at


def _item(number: int, event: Mapping[str, Any], ids: set[str]) -> None:
    kind, item = event["ev"], event.get("id")
    if not isinstance(item, str | int) or isinstance(item, bool) or item == "":
        _bad(number, f"{kind!r} needs `id`, a text or a whole number")
    if kind in _COMES:
        if not isinstance(event.get("key"), str | int) or isinstance(event.get("key"), bool):
            _bad(number, f"{kind!r} needs `key`, the id of the record")
        if event.get("kind", "live") not in KINDS:
            _bad(number, f"`kind` must be one of {', '.join(KINDS)}, not {_cut(event['kind'])!r}")
        if event.get("arrived") is not None:
            _number(number, event, "arrived", None, least=-BEFORE_SECONDS_MAX, most=float(event["t"]))
        ids.add(str(item))
    elif str(item) not in ids:
        _bad(
            number,
            f"{kind!r} of item {_cut(item)!r}, of which no line before says that it came in (`arrive`)",
        )


def _row(number: int, row: Sequence[Any], told: ToldFile) -> float:
    if len(row) not in (10, 11):
        _bad(number, f"a row has 10 or 11 values ({ROW}), not {len(row)}")
    if not isinstance(row[1], str | int):
        _bad(number, "the second value of a row must be the key of the record")
    for name, value in zip(ROW.split(", "), row, strict=False):
        if name != "key" and not _is_number(value):
            _bad(number, f"{name} must be a number, not {_cut(value)!r}")
    if not (row[2] in range(len(told.types)) and row[9] in range(len(KINDS)) and row[5] in range(3)):
        _bad(number, f"the type must be below {len(told.types)}, rel and kind below 3")
    if min(row[3], row[4]) < 0 or not -BEFORE_SECONDS_MAX <= row[0] / 1000 <= SECONDS_MAX:
        _bad(number, "a time of the row is out of range; times are milliseconds")
    if len(row) == 11 and not isinstance(row[10], dict):
        _bad(number, "the eleventh value of a row must be an object")
    told.rows.append(row)
    return float(row[0]) / 1000


def _names_a_type(event: Mapping[str, Any]) -> bool:
    return event["ev"] in _COMES or event["ev"] in _STREAMS


def _number(
    number: int, value: Mapping[str, Any], name: str, default: float | None, *, least: float, most: float
) -> float:
    found = value.get(name, default)
    if not _is_number(found):
        _bad(number, f"`{name}` must be a number of seconds, not {_cut(found)!r}")
    if not least <= found <= most:
        _bad(number, f"`{name}` must lie between {least:g} and {most:g} seconds, not {found:g}")
    return float(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _count(value: Any) -> int:
    if not _is_number(value) or value < 0:
        raise ValueError(f"{_cut(value)!r} is no number of units")
    return int(value)


def _share(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{_cut(value)!r} is no share between 0 and 1")
    return float(value)


def _cut(value: Any) -> Any:
    return value[:40] if isinstance(value, str) else value if _is_number(value) else type(value).__name__


def _bad(number: int, what: str) -> NoReturn:
    raise BadLineError(number, what)
