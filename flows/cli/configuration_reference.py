"""docs/configuration.md, made of the models of environment files and of reference.toml: a test keeps them equal.

`python -m flows.cli.configuration_reference` prints it, in a checkout.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from handlers.environment.model import Environment
from handlers.environment.references import Reference

SOURCE = Path(__file__).parents[2] / "environments" / "reference.toml"
_HEAD = """# Every key of an environment file

An environment file is TOML, `environments/<name>.toml`. [environment.md](environment.md) explains it step by step, and
[reference.toml](../environments/reference.toml) is the same as a file. This page is generated from the models that read
the file (`python -m flows.cli.configuration_reference`); a test keeps both equal.

**Types.** A *reference* is `env:NAME` or `file:PATH`: the secret itself is never in the file. A path on the controller
may begin with `~`. Seconds are real seconds. An unknown key is an error.
"""
_BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
_WORDS = {str: "text", bool: "true or false", int: "integer", float: "number", Reference: "reference"}


@dataclass(kw_only=True)
class Table:
    """A table of reference.toml: where it is, and what is said of it and of its keys."""

    path: tuple[str, ...]
    repeated: bool
    meaning: str
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """As it stands in a file."""
        name = ".".join(self.path)
        return f"`[[{name}]]`" if self.repeated else f"`[{name}]`" if name else "At the top"


def reference(text: str) -> str:
    """The whole page, of the text of reference.toml."""
    parts = [_HEAD.strip()]
    for table in tables(text):
        model, _ = _at(table.path)
        parts.append(f"## {table.heading}")
        if table.meaning:
            parts.append(table.meaning)
        parts.append("\n".join(_lines(table, model)))
    return "\n\n".join(parts) + "\n"


def tables(text: str) -> list[Table]:
    """The tables of reference.toml in their order. Before each key and each heading stands its comment."""
    found = [Table(path=(), repeated=False, meaning="")]
    said: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            said.append(line.lstrip("# ").rstrip())
        elif heading := re.match(r"(\[\[?)([\w.]+)\]", line):
            path = tuple(heading[2].split("."))
            found.append(Table(path=path, repeated=heading[1] == "[[", meaning=" ".join(said)))
        elif key := re.match(r"([a-z_]+) =", line):
            found[-1].keys[key[1]] = " ".join(said)
        if not line.startswith("#"):
            said = []
    return found


def _lines(table: Table, model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, meaning in table.keys.items():
        info = model.model_fields[key]
        cells = (f"`{key}`", type_of(info), _default(info), meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |"


def _at(path: tuple[str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model of a table, and the field that it is the value of."""
    model: type[BaseModel] = Environment
    info = None
    for name in path:
        info = model.model_fields[name]
        [model] = [kind for kind in _classes(info.annotation) if issubclass(kind, BaseModel)]
    return model, info


def _classes(annotation: Any) -> Iterator[type[Any]]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes(inner)


def type_of(info: FieldInfo) -> str:
    """The type of a key in words, with its bounds."""
    return _type(info.annotation, list(info.metadata))


def _type(annotation: Any, metadata: list[Any]) -> str:
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        return _type(kind, [*more, *metadata])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{json.dumps(word)}`" for word in get_args(annotation))
    inner = [kind for kind in get_args(annotation) if kind not in (NoneType, Ellipsis)]
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(kind, metadata) for kind in inner))
    if get_origin(annotation) in (tuple, list, frozenset, set):
        some = ", at least one" if any(isinstance(each, MinLen) for each in metadata) else ""
        return f"list of {_type(inner[0], [])}{some}"
    if get_origin(annotation) is dict:
        return f"table of {_type(inner[1], [])}"
    return _word(annotation) + _bounds(metadata)


def _word(kind: Any) -> str:
    if not isinstance(kind, type):
        return "value"
    if issubclass(kind, PurePath):
        return "path"
    if issubclass(kind, BaseModel):
        return "table"
    return _WORDS.get(kind, kind.__name__.lower())


def _bounds(metadata: list[Any]) -> str:
    """The limits of a number. A `Field` within `Annotated` has them inside."""
    flat = [
        inner for each in metadata for inner in (each.metadata if isinstance(each, FieldInfo) else [each])
    ]
    said = [
        f"{sign} {getattr(each, name):g}"
        for kind, (name, sign) in _BOUNDS.items()
        for each in flat
        if isinstance(each, kind)
    ]
    return f", {' and '.join(said)}" if said else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, PurePath):
        return f"`{json.dumps(str(value))}`"
    if isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
        return ""
    plain = list(value) if isinstance(value, tuple | frozenset | set) else value
    return f"`{json.dumps(plain, ensure_ascii=False, default=str)}`"


if __name__ == "__main__":
    sys.stdout.write(reference(SOURCE.read_text(encoding="utf-8")))
