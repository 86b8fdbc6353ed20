"""A reader of one set of keys, compiled to a Python function: the form that `dataclasses` gives `__init__`.

The generic reader (`read.read`) looks each column up in its plan. Here every column is a line of its own, with the test
for the usual type of its kind written out. What is unusual goes to the parser of the kind; what that refuses goes back
to the generic reader, which collects every refusal. So both give equal results, and a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from handlers.entities import parse
from handlers.entities.parse import Kind
from handlers.entities.spec import Column, Data, Parent
from handlers.queue.event import EntityType

Parents = dict[tuple[EntityType, str], Parent]
Compiled = Callable[[Data, str, Parents], list[str | None]]
"""From a record, the path for messages and the parents, to which it adds. Raises ValueError for a value it refuses."""

_BOUND = 10**parse.DIGITS_MAX
_AMOUNT = (
    "if type(v) is Decimal and -digits <= v.adjusted() < digits: v = str(v)",
    "elif type(v) is int and -bound < v < bound: v = str(v)",
    "else: v = None if v is None or v == '' else read{at}(v)",
)
_USUAL: dict[Kind, Sequence[str]] = {
    parse.NUMBER: _AMOUNT,
    parse.PERCENT: _AMOUNT,
    parse.TEXT: (
        "if type(v) is not str: v = None if v is None else read{at}(v)",
        "elif not v or v.isspace(): v = None",
    ),
    parse.ID: (
        "if type(v) is not str or not v.isdecimal() or not v.isascii() or len(v) > 100:",
        "    v = None if v is None or v == '' else read{at}(v)",
    ),
    parse.INSTANT: (
        "if type(v) is not str or not is_usual_instant(v):",
        "    v = None if v is None or v == '' else read{at}(v)",
    ),
    parse.BOOLEAN: (
        "if v is True: v = 'true'",
        "elif v is False: v = 'false'",
        "else: v = None if v is None or v == '' else read{at}(v)",
    ),
}
"""The lines for a value `v` of each kind; `read{{at}}` is its parser."""
_OTHERS = ("v = None if v is None or v == '' else read{at}(v)",)
_WITH_PARENT = (
    "if v is not None and (parent{at}, v) not in parents:",
    "    parents[parent{at}, v] = Parent(parent{at}, v, path + field{at}(record))",
)

Step = tuple[int, str | None, Column]
"""A column's position, its only key (None if there are several, or it is computed), and the column."""


def compile_reader(
    width: int,
    steps: Sequence[Step],
    value_of: Callable[[Column, Data], object],
    field_of: Callable[[Column, Data], str],
) -> Compiled:
    """The reader of the columns *steps* into a row of *width* values.

    *value_of* and *field_of* are the generic reader's rules for a column with several keys, and for messages.
    """
    names: dict[str, Any] = {
        "Decimal": Decimal,
        "Parent": Parent,
        "bound": _BOUND,
        "digits": parse.DIGITS_MAX,
        "is_usual_instant": parse.is_usual_instant,
    }
    body: list[str] = []
    for at, key, column in steps:
        names[f"read{at}"] = column.kind.read
        if key is not None:
            body.append(f"v = record[{key!r}]")
        else:
            names[f"value{at}"] = column.take or _bound(value_of, column)
            body.append(f"v = value{at}(record)")
        body += (line.format(at=at) for line in _USUAL.get(column.kind, _OTHERS))
        if column.parent is not None:
            names |= {f"parent{at}": column.parent, f"field{at}": _bound(field_of, column)}
            body += (line.format(at=at) for line in _WITH_PARENT)
        body.append(f"v{at} = v")
    filled = {at for at, _, _ in steps}
    row = ", ".join(f"v{at}" if at in filled else "None" for at in range(width))
    source = "\n    ".join(["def read(record, path, parents):", *body, f"return [{row}]"])
    exec(source, names)  # From our own declarations: no key or value of a payload is in it.
    compiled: Compiled = names["read"]
    return compiled


def _bound(rule: Callable[[Column, Data], Any], column: Column) -> Callable[[Data], Any]:
    return lambda record: rule(column, record)
