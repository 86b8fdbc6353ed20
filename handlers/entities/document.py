"""Untrusted JSON: parsed strictly, and written with every number exactly as it was sent."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec

from handlers.errors import Refused

BODY_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 64

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
_WRITE = msgspec.json.Encoder(decimal_format="number").encode


class Refusal(Refused):
    """An invalid payload, with the field and the reason. A retry cannot help."""

    def __init__(self, field: str, reason: str, *, absent: bool = False) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.absent = absent
        """The body is valid but has no record at all."""


def load(body: str, *, from_database: bool = False, bytes_max: int | None = None) -> object:
    """Parse JSON strictly: exact numbers, no duplicate keys, only text that PostgreSQL can store.

    A body *from_database* was a jsonb: it has no duplicate keys and only text that can be stored. The checks would take
    four times as long.

    Raises Refusal, with the field `(body)` if the whole text is wrong.
    """
    if bytes_max is None:
        # PostgreSQL prints a jsonb with blanks, and numbers without an exponent.
        bytes_max = 2 * BODY_BYTES_MAX if from_database else BODY_BYTES_MAX
    if len(body) > bytes_max:
        raise Refusal("(body)", f"is larger than {bytes_max} bytes")
    try:
        value: object = _READ_STORED(body) if from_database else _READ.decode(body)
    except Refusal:
        raise
    except RecursionError as error:
        raise Refusal("(body)", f"is nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:
        raise Refusal("(body)", f"is not JSON: {error}") from error
    if body.count("{") + body.count("[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        raise Refusal("(body)", f"is nested deeper than {DEPTH_MAX} levels")
    if from_database:
        return value
    if "NaN" in body or "Infinity" in body:
        _raise_if_constant(value)
    if "\\u" in body or "\0" in body or not body.isascii():
        _raise_if_not_storable(value)
    return value


def shown(value: object) -> str:
    """A value for an error message: short, and in JSON, so that text and number differ."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Decimal):
        return str(value)
    described = json.dumps(value, ensure_ascii=False)
    return described if len(described) <= 40 else described[:37] + '…"'


def dump(value: object) -> str:
    """JSON text with numbers exactly as they were parsed; `json.dumps` cannot write Decimal."""
    try:
        return _WRITE(value).decode()
    except (TypeError, UnicodeEncodeError):
        return _dump(value)


def _dump(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_ENCODE(k)}: {_dump(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_dump, value)) + "]"
        case Decimal():
            return str(value)
        case _:
            return _ENCODE(value)


def _exact(literal: str) -> Decimal:
    if len(literal) > 200:
        raise Refusal("(body)", f"holds a number of {len(literal)} characters, more than 200")
    figure = Decimal(literal)
    if figure and abs(figure.adjusted()) > 300:
        raise Refusal("(body)", f"holds the number {literal}, which is beyond any amount")
    return figure


class _Constant(str):
    """NaN or an infinity, which Python parses and JSON does not allow; kept until its path is known."""


def _raise_if_constant(value: object, path: str = "") -> None:
    """Raise Refusal for NaN and infinities, with their path: the body is not JSON."""
    if isinstance(value, _Constant):
        where = f" at {path}" if path else ""
        raise Refusal("(body)", f"holds {value}{where}, which is not a number in JSON")
    if isinstance(value, dict):
        for key, inner in value.items():
            _raise_if_constant(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _raise_if_constant(inner, f"{path}[{at}]")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        for key, value in pairs:
            # An equal duplicate is harmless. Compared as text, because 1 == True in Python.
            if dump(value) != dump(unique[key]):
                raise Refusal(key, "duplicate key with different values")
    return unique


_READ = json.JSONDecoder(
    parse_float=_exact, parse_constant=_Constant, object_pairs_hook=_unique_keys, strict=False
)
"""Created once: `json.loads` with options creates a decoder for each call. Not strict: a template of the source puts
line breaks into a text as they are."""
_READ_STORED = msgspec.json.Decoder(float_hook=_exact).decode
"""Twice as fast, but takes the last value of a duplicate key: only for text from PostgreSQL."""


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for container in level
            if isinstance(container, dict | list)
            for inner in (container.values() if isinstance(container, dict) else container)
        ]
    return deepest


def _raise_if_not_storable(value: object) -> None:
    """Raise Refusal for text that PostgreSQL cannot store: NUL, and an unpaired surrogate."""
    as_text = json.dumps(value, ensure_ascii=False, default=str)
    if "\\u0000" in as_text and _has_nul(value):
        raise Refusal("(body)", "holds the character U+0000")
    try:
        as_text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal("(body)", "holds an unpaired surrogate") from error


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
