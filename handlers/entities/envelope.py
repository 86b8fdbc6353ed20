"""Taking records out of what they came in: wrappers, lists, JSON in JSON, and the vendor's printing slips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handlers.entities.base import Handler
from handlers.entities.document import Refusal, dump, load, shown
from handlers.entities.spec import Data

_TEXT_FIELDS = ("JSONString", "payload", "data")
"""Keys that hold the real body, as an object or once more as JSON text: form fields, and relays."""

_NESTING_MAX = 4


@dataclass(frozen=True, kw_only=True)
class Record:
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
    return _take(handler, load(body, from_database=from_database), body, (), 0)


def _take(handler: Handler, value: Any, body: str | None, path: tuple[str, ...], depth: int) -> list[Record]:
    if depth > _NESTING_MAX:
        raise Refusal("(body)", "is wrapped too many times")
    if isinstance(value, str):
        if not value.strip():
            raise Refusal(path[-1] if path else "(body)", "is empty: a check call, not a record", absent=True)
        return _take(handler, load(value), value, (), depth + 1)
    if isinstance(value, list):
        return _all(value, path)
    if not isinstance(value, dict):
        raise Refusal("(body)", f"must be an object, not {shown(value)}")
    flat = any(key in value for key in handler.id_keys)
    for key in handler.wrappers:
        if key in value and not (flat and not isinstance(value[key], dict | list)):
            return _unwrap(value[key], key, body, path)
    for key, reason in handler.refused_wrappers.items():
        if key in value:
            raise Refusal(key, reason)
    if flat:
        return [Record(data=value, body=body, path=path)]
    for key in _TEXT_FIELDS:
        if key in value:
            return _take(handler, value[key], body, (*path, key), depth + 1)
    raise _nothing(handler, value)


def _nothing(handler: Handler, value: Data) -> Refusal:
    """Why an object without a record is refused."""
    code = value.get("code", 0)
    if code not in (0, "0"):
        return Refusal("code", f"the source answered with an error: {shown(value.get('message', code))}")
    found = ", ".join(sorted(value)[:8]) or "nothing"
    wanted = " or ".join((*handler.wrappers[:2], handler.id_keys[0]))
    reason = f"holds no {handler.entity.value}: wanted {wanted}, found {found}"
    return Refusal("(body)", reason, absent=not value.keys() - {"code", "message"})


def _unwrap(value: Any, key: str, body: str | None, path: tuple[str, ...]) -> list[Record]:
    """The record under its own key; a list may stand for one record and one record for a list."""
    if isinstance(value, str) and value.strip():
        value, body, path = load(value), value, ()
    else:
        path = (*path, key)
    if isinstance(value, dict):
        return [Record(data=value, body=body, path=path)]
    if isinstance(value, list):
        return _all(value, (key,))
    raise Refusal(key, f"must be an object or a list, not {shown(value)}")


def _all(value: list[Any], path: tuple[str, ...]) -> list[Record]:
    where = path[-1] if path else "(body)"
    if not value:
        raise Refusal(where, "is an empty list: no record in it")
    for position, one in enumerate(value):
        if not isinstance(one, dict):
            raise Refusal(f"{where}[{position}]", f"must be an object, not {shown(one)}")
    return [Record(data=one) for one in value]
