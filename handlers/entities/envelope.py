"""Taking records out of what they came in: wrappers, lists, JSON in JSON, and the vendor's printing slips."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, dump, load, shown
from handlers.entities.spec import Data

_TEXT_FIELDS = ("JSONString", "payload", "data")
"""Keys that hold the real body, as an object or once more as JSON text: form fields, and relays."""

_FORM = re.compile(r"[A-Za-z_]{1,40}=")
"""How a form-encoded body begins; JSON never does."""

_NESTING_MAX = 4
_CHECK_CALL = "is empty: a check call, not a record"


class Record(NamedTuple):
    """One record and, where the body holds nothing else, where it stands in the body's own text.

    The server can then take the raw record out of that text, and nobody has to write it again.
    """

    data: Data
    body: str | None = None
    path: tuple[str, ...] = ()

    def raw(self) -> tuple[str, str]:
        """JSON text and the path in it, as PostgreSQL writes a text array."""
        if self.body is None:
            return dump(self.data), "{}"
        return self.body, "{" + ",".join(self.path) + "}"


def records(handler: Handler, body: str, *, from_database: bool = False) -> list[Record]:
    """All records of *handler*'s kind in *body*. Raises Refusal where it holds none, or something else."""
    found = each(handler, body, from_database=from_database)
    for one in found:
        if isinstance(one, Refusal):
            raise one
    return [one for one in found if isinstance(one, Record)]


def each(handler: Handler, body: str, *, from_database: bool = False) -> list[Record | Refusal]:
    """The records in *body* one by one: what is wrong with one element of a list says nothing of the others."""
    if _FORM.match(body):
        fields = dict(parse_qsl(body, keep_blank_values=True))
        return _take(handler, fields, None, (), 0)
    if not body.strip():
        raise Refusal("(body)", _CHECK_CALL, absent=True)
    return _take(handler, load(body, from_database=from_database), body, (), 0)


def _take(
    handler: Handler, value: Any, body: str | None, path: tuple[str, ...], depth: int
) -> list[Record | Refusal]:
    if depth > _NESTING_MAX:
        raise Refusal("(body)", "is wrapped too many times")
    if isinstance(value, str):
        if not value.strip():
            raise Refusal(path[-1] if path else "(body)", _CHECK_CALL, absent=True)
        return _take(handler, load(value), value, (), depth + 1)
    if value is None and path:
        raise Refusal(path[-1], _CHECK_CALL, absent=True)
    if isinstance(value, list):
        return _all(handler, value, path, depth)
    if not isinstance(value, dict):
        raise Refusal("(body)", f"must be an object, not {shown(value)}")
    flat = any(key in value for key in handler.id_keys)
    for key in handler.wrappers:
        if key in value and not (flat and not isinstance(value[key], dict | list)):
            return _unwrap(handler, value[key], body, (*path, key), depth)
    if flat:
        return [Record(data=value, body=body, path=path)]
    for key in _TEXT_FIELDS:
        if key in value:
            return _take(handler, value[key], body, (*path, key), depth + 1)
    raise _nothing(handler, value)


def _nothing(handler: Handler, value: Data) -> Refusal:
    """Why an object without a record is refused."""
    for key, reason in handler.refused_wrappers.items():
        if key in value:
            return Refusal(key, reason)
    code = value.get("code", 0)
    if code not in (0, "0"):
        return Refusal("code", f"the source answered with an error: {shown(value.get('message', code))}")
    found = ", ".join(sorted(value)[:8]) or "nothing"
    wanted = " or ".join((*handler.wrappers[:2], handler.id_keys[0]))
    reason = f"holds no {handler.entity.value}: wanted {wanted}, found {found}"
    return Refusal("(body)", reason, absent=not value.keys() - {"code", "message"})


def _unwrap(
    handler: Handler, value: Any, body: str | None, path: tuple[str, ...], depth: int
) -> list[Record | Refusal]:
    """The record under its own key; a list may stand for one record and one record for a list."""
    key = path[-1]
    if isinstance(value, str):
        if not value.strip():
            raise Refusal(key, _CHECK_CALL, absent=True)
        value, body, path = load(value), value, ()
    if isinstance(value, dict):
        return [Record(data=value, body=body, path=path)]
    if isinstance(value, list):
        return _all(handler, value, (key,), depth)
    raise Refusal(key, f"must be an object or a list, not {shown(value)}")


def _all(handler: Handler, value: list[Any], path: tuple[str, ...], depth: int) -> list[Record | Refusal]:
    """The elements of a list, each a record, or once more wrapped as a single one is."""
    where = path[-1] if path else "(body)"
    if not value:
        raise Refusal(where, "is an empty list: no record in it")
    found: list[Record | Refusal] = []
    for position, one in enumerate(value):
        at = f"{where}[{position}]"
        if not isinstance(one, dict):
            found.append(Refusal(at, f"must be an object, not {shown(one)}"))
        elif not path and any(isinstance(one.get(key), dict) for key in handler.wrappers):
            try:
                found += _take(handler, one, None, (), depth + 1)
            except Refusal as refusal:
                found.append(refusal)
        else:
            found.append(Record(data=one))
    return found
