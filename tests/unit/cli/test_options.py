"""What the options of several commands accept: an unknown name or no duration is refused in one sentence."""

from __future__ import annotations

import pytest

from flows.cli.options import parse_entity, parse_span, parse_status
from flows.cli.output import cut, printable
from handlers.errors import Refused
from handlers.queue.event import EntityType, Status


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), (" 7d ", 7 * 86_400)]
)
def test_a_span_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours and days."""
    assert parse_span(text, least="1s") == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "h",
        "-1h",
        "0s",
        "1e9h",
        "1w",
        "yesterday",
        "2026-11-29",
        "32d",
        "9" * 400 + "d",
        "\u0661h",
        "nanh",
    ],
)
def test_what_is_no_span_is_refused(text: str) -> None:
    """No unit, a negative or a huge one, a date: never a guess, never the whole history by mistake."""
    with pytest.raises(Refused, match="--since"):
        parse_span(text, least="1s")


def test_a_report_asks_for_a_minute_at_least() -> None:
    """Each command has its own least span, and names it."""
    with pytest.raises(Refused, match="between 1m and 31d"):
        parse_span("59s")
    assert parse_span("59s", least="1s") == 59


def test_an_unknown_entity_suggests_the_one_meant() -> None:
    """A slip of the finger names the type; a name like no other names all of them."""
    assert parse_entity("price-list") is EntityType.PRICE_LIST
    with pytest.raises(Refused, match="did you mean Invoice"):
        parse_entity("invoce")
    with pytest.raises(Refused, match="unknown entity 'zebra': choose one of Product, Customer"):
        parse_entity("zebra")


def test_an_unknown_status_suggests_the_one_meant() -> None:
    """The queue's own words count, with - for _."""
    assert parse_status("Dead-Letter") is Status.DEAD_LETTER
    with pytest.raises(Refused, match="did you mean completed"):
        parse_status("complete")
    with pytest.raises(Refused, match="choose one of pending"):
        parse_status("")


def test_what_comes_from_outside_cannot_move_the_cursor() -> None:
    """Control characters of a key, an error or a log line are blanks on a terminal, and long lines are cut."""
    assert printable("a\x1b[2Jb\r\nc\x00\u202ed") == "a [2Jb  c  d"
    assert cut("x" * 90) == "x" * 77 + "..."
