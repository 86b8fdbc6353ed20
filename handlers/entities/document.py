"""JSON from outside: read strictly, kept exactly, written back with every number as it was sent."""

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
    """A payload is not what it should be: which field, and why. Sending it again cannot help."""

    def __init__(self, field: str, reason: str, *, absent: bool = False) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.absent = absent
        """The body is sound but holds no record at all."""


def load(body: str, *, from_database: bool = False) -> object:
    """Read JSON strictly: exact numbers, one value for each key, nothing that PostgreSQL could not keep.

    A body that comes *from the database* was a jsonb: no key of it stands twice and all its text can be kept, and
    looking again would take four times as long.

    Raises Refusal with the field `(body)` where the text as a whole is wrong.
    """
    if len(body) > BODY_BYTES_MAX:
        raise Refusal("(body)", f"is larger than {BODY_BYTES_MAX} bytes")
    try:
        value: object = _READ_AGAIN(body) if from_database else _READ.decode(body)
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
        _no_constants(value)
    if "\\u" in body or not body.isascii():
        _storable(value)
    return value


def shown(value: object) -> str:
    """A value as an error may show it: short, and telling text from number."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Decimal):
        return str(value)
    described = json.dumps(value, ensure_ascii=False)
    return described if len(described) <= 40 else described[:37] + '…"'


def dump(value: object) -> str:
    """JSON text with numbers exactly as they were read, which `json.dumps` cannot do for Decimal."""
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
        raise Refusal("(body)", f"holds a number of {len(literal)} characters")
    figure = Decimal(literal)
    if figure and abs(figure.adjusted()) > 300:
        raise Refusal("(body)", f"holds the number {literal}, which is beyond any amount")
    return figure


class _Constant(str):
    """NaN or an infinity, which Python reads and JSON does not know; kept until it is clear where it stands."""


def _no_constants(value: object, path: str = "") -> None:
    """Refuse NaN and the infinities, naming where they stand: the body as a whole is not JSON."""
    if isinstance(value, _Constant):
        where = f" at {path}" if path else ""
        raise Refusal("(body)", f"holds {value}{where}, which is not a number in JSON")
    if isinstance(value, dict):
        for key, inner in value.items():
            _no_constants(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _no_constants(inner, f"{path}[{at}]")


def _no_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    read = dict(pairs)
    if len(read) != len(pairs):
        for key, value in pairs:
            # Said twice alike is said once. As text: 1 and true are equal, and not the same.
            if dump(value) != dump(read[key]):
                raise Refusal(key, "stands twice in one object, so nobody can say which value is meant")
    return read


_READ = json.JSONDecoder(parse_float=_exact, parse_constant=_Constant, object_pairs_hook=_no_twice)
"""Made once: `json.loads` with options makes a decoder for each text."""
_READ_AGAIN = msgspec.json.Decoder(float_hook=_exact).decode
"""Twice as fast, and it takes the last of two values for one key: for text that PostgreSQL printed."""


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return deepest


def _storable(value: object) -> None:
    """Refuse what JSON can say and a PostgreSQL text cannot hold: NUL, and half of a surrogate pair."""
    flat = json.dumps(value, ensure_ascii=False, default=str)
    if "\\u0000" in flat and _has_nul(value):
        raise Refusal("(body)", "holds the character U+0000")
    try:
        flat.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal("(body)", "holds half of a surrogate pair") from error


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
