"""Extracting records from their envelope: wrapper keys, lists, JSON in JSON, and form fields."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, dump, load, shown
from handlers.entities.spec import Data

_TEXT_FIELDS = ("JSONString", "payload", "data")
"""Keys of form fields and relays whose value is the real body, as an object or as JSON text."""

_FORM = re.compile(r"[A-Za-z_]{1,40}=")
"""The start of a form-encoded body; JSON never starts like this."""

_NESTING_MAX = 4
_CHECK_CALL = "is empty: a check call, not a record"


class Record(NamedTuple):
    """One record and, if it is the only one, its path in the body's text.

    PostgreSQL can then extract the raw record from that text, and we need not serialize it again.
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
    """All records of *handler*'s type in *body*. Raises Refusal if there is none, or something else."""
    elements = records_or_refusals(handler, body, from_database=from_database)
    for element in elements:
        if isinstance(element, Refusal):
            raise element
    return [element for element in elements if isinstance(element, Record)]


def records_or_refusals(
    handler: Handler, body: str, *, from_database: bool = False
) -> list[Record | Refusal]:
    """The records in *body*; an invalid element of a list is a Refusal in its place."""
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
        raise Refusal("(body)", f"has more than {_NESTING_MAX} nested envelopes")
    if isinstance(value, str):
        if not value.strip():
            raise Refusal(path[-1] if path else "(body)", _CHECK_CALL, absent=True)
        return _take(handler, load(value), value, (), depth + 1)
    if value is None and path:
        raise Refusal(path[-1], _CHECK_CALL, absent=True)
    if isinstance(value, list):
        return _take_list(handler, value, path, depth)
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
    raise _no_record(handler, value)


def _no_record(handler: Handler, value: Data) -> Refusal:
    """The refusal of an object without a record."""
    for key, reason in handler.refused_wrappers.items():
        if key in value:
            return Refusal(key, reason)
    code = value.get("code", 0)
    if code not in (0, "0"):
        return Refusal("code", f"the source answered with an error: {shown(value.get('message', code))}")
    found_keys = ", ".join(sorted(value)[:8]) or "nothing"
    expected = " or ".join((*handler.wrappers[:2], handler.id_keys[0]))
    reason = f"holds no {handler.entity.value}: expected {expected}, found {found_keys}"
    return Refusal("(body)", reason, absent=not value.keys() - {"code", "message"})


def _unwrap(
    handler: Handler, value: Any, body: str | None, path: tuple[str, ...], depth: int
) -> list[Record | Refusal]:
    """The records under a wrapper key, which holds an object or a list."""
    key = path[-1]
    if isinstance(value, str):
        if not value.strip():
            raise Refusal(key, _CHECK_CALL, absent=True)
        value, body, path = load(value), value, ()
    if isinstance(value, dict):
        return [Record(data=value, body=body, path=path)]
    if isinstance(value, list):
        return _take_list(handler, value, (key,), depth)
    raise Refusal(key, f"must be an object or a list, not {shown(value)}")


def _take_list(
    handler: Handler, value: list[Any], path: tuple[str, ...], depth: int
) -> list[Record | Refusal]:
    """The elements of a list, each a record or a wrapped record."""
    list_path = path[-1] if path else "(body)"
    if not value:
        raise Refusal(list_path, "is an empty list, without a record")
    elements: list[Record | Refusal] = []
    for position, element in enumerate(value):
        position_path = f"{list_path}[{position}]"
        if not isinstance(element, dict):
            elements.append(Refusal(position_path, f"must be an object, not {shown(element)}"))
        elif not path and any(isinstance(element.get(key), dict) for key in handler.wrappers):
            try:
                elements += _take(handler, element, None, (), depth + 1)
            except Refusal as refusal:
                elements.append(refusal)
        else:
            elements.append(Record(data=element))
    return elements
