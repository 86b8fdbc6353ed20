"""Readers take what a payload may hold and refuse the rest; they never guess."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.entities.document import DEPTH_MAX, Refusal, dump, load
from handlers.entities.parse import (
    BOOLEAN,
    DATE,
    ID,
    INSTANT,
    INTEGER,
    LIST,
    NUMBER,
    OBJECT,
    PERCENT,
    TEXT,
    Kind,
    moment,
)

KINDS = (TEXT, ID, NUMBER, PERCENT, INTEGER, BOOLEAN, DATE, INSTANT, OBJECT, LIST)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("blank", [None, "", " ", "\t \n"])
def test_blank_is_nothing(kind: Kind, blank: object) -> None:
    """Blank is NULL for every kind of value: never 0, never false, never today."""
    assert kind.read(blank) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TEXT, True),
        (TEXT, {}),
        (TEXT, []),
        (ID, 2.6e18),
        (ID, Decimal("2646610000000113826.0")),
        (ID, "2.64661E+18"),
        (ID, "26E17"),
        (ID, True),
        (ID, {"id": 1}),
        (ID, "1 2"),
        (ID, "-12.0"),
        (ID, -1),
        (NUMBER, True),
        (NUMBER, "NaN"),
        (NUMBER, "inf"),
        (NUMBER, "1,000"),
        (NUMBER, "12 500"),
        (NUMBER, "Rs.1,005.00"),
        (NUMBER, "10%"),
        (NUMBER, "0x10"),
        (NUMBER, "١٢"),
        (NUMBER, "1,25E4"),
        (NUMBER, "1E"),
        (NUMBER, "1E+"),
        (NUMBER, "E5"),
        (NUMBER, "1E5.0"),
        (NUMBER, "1E-60"),
        (NUMBER, "5."),
        (NUMBER, "."),
        (NUMBER, "1.0E40"),
        (NUMBER, "1.0E400"),
        (NUMBER, []),
        (NUMBER, 10**40),
        (NUMBER, "9" * 31),
        (NUMBER, Decimal("1E+60")),
        (NUMBER, Decimal("1E-60")),
        (PERCENT, "10%%"),
        (PERCENT, "%"),
        (PERCENT, "ten%"),
        (INTEGER, "15.5"),
        (INTEGER, 2**31),
        (BOOLEAN, 2),
        (BOOLEAN, -1),
        (BOOLEAN, Decimal("1.0")),
        (BOOLEAN, "yes"),
        (BOOLEAN, []),
        (DATE, "04-11-2025"),
        (DATE, "2025-02-30"),
        (DATE, "2025-1-1"),
        (DATE, "20250101"),
        (DATE, "2025-11-04junk"),
        (DATE, 20251104),
        (INSTANT, "2025-11-04T15:20:11"),
        (INSTANT, "04/11/2025 02:52 PM"),
        (INSTANT, "2025-11-04T25:00:00Z"),
        (INSTANT, "2025-11-04T15:20:11 Asia/Baghdad"),
        (INSTANT, "0001-01-01T00:00:00+1400"),
        (INSTANT, "2025-02-30T10:00:00+0300"),
        (INSTANT, "2025-11-04T15:20:11+9900"),
        (INSTANT, "2025-11-04T15:20:11+1830"),
        (INSTANT, "2025-11-04T15:20:11+0275"),
        (INSTANT, 1762258811),
        (OBJECT, "text"),
        (OBJECT, 5),
        (LIST, "text"),
        (LIST, True),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(kind: Kind, value: object) -> None:
    """A value of the wrong kind is refused with a reason; it becomes neither NULL nor a default."""
    with pytest.raises(ValueError, match=r"\w"):
        kind.read(value)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (ID, 2646610000000113826, "2646610000000113826"),
        (ID, "0012", "0012"),
        (ID, " 2646610000000113826 ", "2646610000000113826"),
        (ID, "adj1", "adj1"),
        (TEXT, "  kept as it is ", "  kept as it is "),
        (TEXT, 94588, "94588"),
        (TEXT, Decimal("1.50"), "1.50"),
        (NUMBER, "10820.0", "10820.0"),
        (NUMBER, " -2 ", "-2"),
        (NUMBER, Decimal("0.10"), "0.10"),
        (NUMBER, "1.25E7", "1.25E+7"),
        (NUMBER, "1E+7", "1E+7"),
        (NUMBER, "1e7", "1E+7"),
        (NUMBER, "-1.25e+4", "-1.25E+4"),
        (NUMBER, "1E-7", "1E-7"),
        (NUMBER, "0E-8", "0E-8"),
        (NUMBER, "-0.0E+300", "0"),
        (INTEGER, "1.5E1", "15"),
        (PERCENT, "1E+1%", "1E+1"),
        (NUMBER, "-1.0E-4", "-0.00010"),
        (NUMBER, ".5", ".5"),
        (PERCENT, "10.00%", "10.00"),
        (PERCENT, "70 %", "70"),
        (PERCENT, Decimal("12.5"), "12.5"),
        (INTEGER, "-3", "-3"),
        (INTEGER, Decimal("15.0"), "15"),
        (BOOLEAN, True, "true"),
        (BOOLEAN, " False ", "false"),
        (BOOLEAN, 1, "true"),
        (BOOLEAN, "0", "false"),
        (DATE, " 2025-11-04 ", "2025-11-04"),
        (DATE, "2023-07-22T18:30:00.000Z", "2023-07-22"),
        (INSTANT, "2025-11-04T15:20:11+0300", "2025-11-04T15:20:11+0300"),
        (INSTANT, " 2025-11-04T15:20:11+0300", "2025-11-04T12:20:11+00:00"),
        (INSTANT, "2025-11-04T15:20:11+03:00", "2025-11-04T12:20:11+00:00"),
        (INSTANT, "2025-11-04T15:20:11.250Z", "2025-11-04T15:20:11.250000+00:00"),
        (INSTANT, "2015-05-28", "2015-05-28T00:00:00+00:00"),
        (INSTANT, " 2025-11-04T15:20:11+14:00 ", "2025-11-04T01:20:11+00:00"),
        (INSTANT, "2025-11-04T15:20:11Z", "2025-11-04T15:20:11+00:00"),
        (OBJECT, [{"a": 1}], '{"a":1}'),
        (OBJECT, ["address", "city"], '["address","city"]'),
        (LIST, {"a": Decimal("1.10")}, '[{"a":1.10}]'),
        (LIST, {}, "[]"),
    ],
)
def test_every_form_that_was_seen_is_read(kind: Kind, value: object, wanted: str) -> None:
    """Forms seen in recorded and published payloads are read exactly."""
    assert kind.read(value) == wanted


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=6))
def test_a_number_keeps_every_digit(amount: Decimal) -> None:
    """Money is a decimal from the text on, whether the JSON has a number or a text."""
    printed = f"{amount:f}"
    for body in (f'{{"v": {printed}}}', f'{{"v": "{printed}"}}'):
        read = load(body)
        assert isinstance(read, dict)
        figure = NUMBER.read(read["v"])
        assert figure is not None
        assert Decimal(figure) == amount


@given(st.integers(min_value=0, max_value=10**19))
def test_an_id_is_the_same_text_from_number_and_text(number: int) -> None:
    """Ids beyond 2^53 survive, because no float ever touches them."""
    read = load(f'{{"n": {number}, "t": "{number}"}}')
    assert isinstance(read, dict)
    assert ID.read(read["n"]) == ID.read(read["t"]) == str(number)


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)),
    st.integers(min_value=-12 * 60, max_value=14 * 60),
)
def test_an_instant_is_the_same_in_every_offset(naive: datetime, minutes: int) -> None:
    """Offsets without a colon, as the source writes them, name the same instant as any other spelling."""
    wanted = naive.replace(microsecond=0, tzinfo=UTC)
    there = wanted.astimezone(timezone(timedelta(minutes=minutes)))
    with_colon = there.isoformat()
    without = there.strftime("%Y-%m-%dT%H:%M:%S%z")
    assert moment(with_colon) == moment(without) == wanted


@given(st.text(max_size=30))
def test_readers_read_or_refuse_and_never_break(value: str) -> None:
    """For any text, a parser returns a value or NULL, or raises ValueError with a reason."""
    for kind in KINDS:
        read = None
        with contextlib.suppress(ValueError):
            read = kind.read(value)
        assert read is None or read.strip()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"item": {"rate": NaN}}', "NaN"),
        ('{"item": {"lines": [1, {"rate": -Infinity}]}}', r"-Infinity at item.lines\[1\].rate"),
        ('{"item": {"rate": 1e400}}', "beyond any amount"),
        ('{"item": {"rate": ' + "9" * 5000 + "}}", "not JSON"),
        ('{"item": {"rate": 1, "rate": 2}}', "duplicate key"),
        ('{"item": ', "not JSON"),
        ("", "not JSON"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "deeper"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "deeper"),
        ('{"name": "a\\u0000b"}', "U+0000"),
        ('{"a\\u0000": 1}', "U+0000"),
        ('{"name": "\\ud83d"}', "surrogate"),
    ],
)
def test_a_body_that_cannot_be_kept_is_refused(body: str, reason: str) -> None:
    """What is not JSON, says a key twice, or holds what PostgreSQL cannot keep is refused as a whole."""
    with pytest.raises(Refusal, match=reason.replace("+", r"\+")):
        load(body)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    """The size is checked first: hundreds of megabytes are refused without parsing."""
    with pytest.raises(Refusal, match="larger than"):
        load('"' + "x" * 5_000_000 + '"')


def test_an_escaped_backslash_is_not_the_character_nul() -> None:
    r"""The text `\u0000`, written with an escaped backslash, is six harmless characters."""
    assert load('{"name": "\\\\u0000"}') == {"name": "\\u0000"}


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=4)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_json_is_written_back_as_it_was_read(value: object) -> None:
    """A record that has to be printed again holds the same values, digit by digit."""
    assert load(dump(value)) == value
    assert json.loads(dump(value), parse_float=Decimal) == value
