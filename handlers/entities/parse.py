"""Strict parsers of payload values: from a JSON value to the text that PostgreSQL casts.

Numbers and dates are sent to the server as text: that is exact, and three times cheaper than creating objects.
Blank (`""`, `" "`, null) becomes NULL. An invalid value raises ValueError; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from handlers.entities.document import dump, shown

DIGITS_MAX = 30
"""Most digits before the decimal point: more is not an amount, and PostgreSQL could refuse it later."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of value: its column type, and its parser, which raises ValueError with the reason."""

    name: str
    pg_type: str
    read: Callable[[object], str | None]


_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
"""Every form of a JSON number, and two that other programs print: `+1` and `.5`."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_FLOAT_LIKE = re.compile(r"[0-9]+[eE][0-9]+")
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ].*)?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_USUAL_LENGTH = len("2025-11-04T15:20:11+0300")
_OFFSET_MAX = timedelta(hours=14)
"""The largest offset of any time zone."""

_BOOLEANS = {"true": "true", "false": "false", "1": "true", "0": "false"}
_BARE_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def text(value: object) -> str | None:
    """Text, unchanged. Numbers are accepted: in published examples, zip codes are numbers."""
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if value is None:
        return None
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"must be text, not {shown(value)}")


def identifier(value: object) -> str | None:
    """An id as text, from text or a whole number. A float is refused: it has lost digits of the id."""
    if isinstance(value, str):
        name = value.strip()
        if not name:
            return None
        if _ID.fullmatch(name) and not _FLOAT_LIKE.fullmatch(name):
            return name
        raise ValueError(f"must be an id, not {shown(value)}")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    raise ValueError(f"must be an id as text or whole number, not {shown(value)}")


def number(value: object) -> str | None:
    """An exact decimal, from a number or a numeric text."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {shown(value)}")
    if isinstance(value, Decimal):
        return str(_bounded(value))
    if isinstance(value, int):
        figure = str(value)
    elif value is None:
        return None
    elif isinstance(value, str):
        figure = value.strip()
        if not figure:
            return None
        if not _NUMBER.fullmatch(figure):
            raise ValueError(f"must be a number, not {shown(value)}")
        if "e" in figure or "E" in figure:
            return str(_bounded(Decimal(figure)))
    else:
        raise ValueError(f"must be a number, not {shown(value)}")
    if len(figure.partition(".")[0]) > DIGITS_MAX:
        raise ValueError("is a number beyond any amount")
    return figure


def _bounded(amount: Decimal) -> Decimal:
    if not -DIGITS_MAX <= amount.adjusted() < DIGITS_MAX:
        if not amount:
            return Decimal(0)
        raise ValueError("is a number beyond any amount")
    return amount


def percent(value: object) -> str | None:
    """A percentage or discount: a number; text may end with a percent sign (`10.00%`)."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        figure = value.rstrip()[:-1].strip()
        if not _NUMBER.fullmatch(figure):
            raise ValueError(f"must be a percentage, not {shown(value)}")
        return number(figure)
    return number(value)


def integer(value: object) -> str | None:
    """A whole number, also in the form `15.0`."""
    figure = number(value)
    if figure is None:
        return None
    amount = Decimal(figure)
    if amount != amount.to_integral_value() or abs(amount) > 2_147_483_647:
        raise ValueError(f"must be a whole number, not {shown(value)}")
    return str(int(amount))


def boolean(value: object) -> str | None:
    """True or false, also as text or as 1 and 0: older webhooks send everything as text."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return None
    if isinstance(value, str | int):
        word = str(value).strip().lower()
        if not word:
            return None
        if word in _BOOLEANS:
            return _BOOLEANS[word]
    raise ValueError(f"must be true or false, not {shown(value)}")


def calendar_date(value: object) -> str | None:
    """A calendar day: the first ten characters, without time zone conversion."""
    if isinstance(value, str):
        printed = value.strip()
        if not printed:
            return None
        match = _DATE.fullmatch(printed)
        if match is None:
            raise ValueError(f"must be a date like 2025-11-04, not {shown(value)}")
        try:
            date.fromisoformat(match[1])
        except ValueError as error:
            raise ValueError(f"is not a valid date: {shown(value)}") from error
        return match[1]
    if value is None:
        return None
    raise ValueError(f"must be a date as text, not {shown(value)}")


def moment(value: object) -> datetime | None:
    """A timezone-aware time in UTC. A date alone is midnight UTC: some published examples have such stamps.

    A time without an offset is refused: the payload does not contain the organisation's time zone, and a guess could
    make an older version look newer.
    """
    if isinstance(value, str):
        return _moment(value.strip())
    if value is None:
        return None
    raise ValueError(f"must be a time as text, not {shown(value)}")


@lru_cache(maxsize=4096)
def _moment(printed: str) -> datetime | None:
    """Cached, because one record contains the same time up to three times."""
    if not printed:
        return None
    if is_usual_instant(printed):
        return datetime.fromisoformat(printed).astimezone(UTC)
    match = _INSTANT.fullmatch(printed)
    try:
        if match is None:
            if _BARE_DATE.fullmatch(printed):
                return datetime.fromisoformat(printed).replace(tzinfo=UTC)
            raise ValueError(f"must be a time like 2025-11-04T15:20:11+0300, not {shown(printed)}")
        if match[1] is None:
            raise ValueError(f"has no UTC offset, so the time is ambiguous: {shown(printed)}")
        return _aware(printed, match[1]).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"is out of range: {shown(printed)}") from error


def is_usual_instant(printed: str) -> bool:
    """Whether a text is a valid time in the form of nearly every stamp (2025-11-04T15:20:11+0300)."""
    if len(printed) != _USUAL_LENGTH or printed[4:20:3] not in ("--T::+", "--T::-"):
        return False
    # The years at both ends may leave the calendar in UTC.
    if printed[20:] > "1400" or printed[22] > "5" or not "0002" <= printed[:4] <= "9998":
        return False
    try:
        datetime.fromisoformat(printed)
    except ValueError:
        return False
    return True


def _aware(printed: str, offset: str) -> datetime:
    """The time with its offset. Raises ValueError if either is invalid."""
    try:
        read = datetime.fromisoformat(printed)
    except ValueError as error:
        raise ValueError(f"is not a valid time: {shown(printed)}") from error
    distance = read.utcoffset()
    if distance is None or abs(distance) > _OFFSET_MAX or "60" <= offset[-2:] <= "99":
        raise ValueError(f"has an invalid UTC offset: {shown(printed)}")
    return read


def instant(value: object) -> str | None:
    """A time as text with its offset: as it was sent in the usual form, otherwise in UTC."""
    if isinstance(value, str):
        return value if is_usual_instant(value) else _formatted(value.strip())
    return iso(moment(value))


@lru_cache(maxsize=4096)
def _formatted(printed: str) -> str | None:
    """Cached like `_moment`: formatting costs as much as parsing."""
    return iso(_moment(printed))


def iso(at: datetime | None) -> str | None:
    """A time in the format of PostgreSQL."""
    return at.isoformat() if at is not None else None


def json_object(value: object) -> str | None:
    """An object or a list as JSON text, every number as it was sent. A list with one object is that object."""
    if value is None or (isinstance(value, str) and (not value or value.isspace())):
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict | list):
        return dump(value)
    raise ValueError(f"must be an object, not {shown(value)}")


def json_list(value: object) -> str | None:
    """A list as JSON text; an object becomes a list of one, and an empty object an empty list."""
    if isinstance(value, dict):
        value = [value] if value else []
    elif isinstance(value, list):
        pass
    elif value is None or (isinstance(value, str) and (not value or value.isspace())):
        return None
    else:
        raise ValueError(f"must be a list, not {shown(value)}")
    return dump(value)


TEXT = Kind(name="text", pg_type="text", read=text)
ID = Kind(name="id", pg_type="text", read=identifier)
NUMBER = Kind(name="number", pg_type="numeric", read=number)
PERCENT = Kind(name="percent", pg_type="numeric", read=percent)
INTEGER = Kind(name="integer", pg_type="integer", read=integer)
BOOLEAN = Kind(name="boolean", pg_type="boolean", read=boolean)
DATE = Kind(name="date", pg_type="date", read=calendar_date)
INSTANT = Kind(name="instant", pg_type="timestamptz", read=instant)
OBJECT = Kind(name="object", pg_type="jsonb", read=json_object)
LIST = Kind(name="list", pg_type="jsonb", read=json_list)
