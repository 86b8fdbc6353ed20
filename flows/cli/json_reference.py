"""docs/json.md, made of the models of what --json prints: a test keeps both equal.

`python -m flows.cli.json_reference` prints it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import StrEnum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from flows.cli.json_objects import (
    Failure,
    History,
    Outcome,
    PullRequest,
    ReportFiles,
    Started,
    json_name,
)
from flows.cli.schema_version import SCHEMA_VERSION
from handlers.measurements.queue_view import QueueView
from handlers.release.planned import Plan
from handlers.status.event_view import EventView
from handlers.status.view import StatusView

OBJECTS: Mapping[str, type[Any]] = {
    "status": StatusView,
    "release, canary, drain, watch, resume, rollback, abort": Outcome,
    "the same with --detach": Started,
    "plan": Plan,
    "history": History,
    "report": ReportFiles,
    "pr show, pr open, pr wait, pr merge": PullRequest,
    "queue show": QueueView,
    "queue show ID": EventView,
    "a failure": Failure,
}
"""What is described, by the command that prints it; the other models are parts of these."""
_COMPUTED: Mapping[type[Any], tuple[str, ...]] = {Plan: ("good", "hash")}
"""Properties that are printed beside the fields."""
_HEAD = f"""# The JSON of the commands

With `--json` a command prints one object on one line, as its last line on stdout. Sentences for people are on
stderr. This page is generated from the models (`python -m flows.cli.json_reference`); a test keeps both equal.

**Version.** Each object has `schema_version`, now {SCHEMA_VERSION}. It grows when a field of any object on this
page is removed or renamed, or gets another type, unit or meaning. New fields, and new words where a field is one of
several, do not change it: a reader ignores what it does not know. The objects of commands that are not on this page
have `schema_version` too, and may still change.

**Forms.** A time is ISO 8601 text with its offset. A revision is a full commit hash. An empty text says that there is
nothing to say; null says that it is not known or does not exist. Fields that end in `seconds` are real seconds, except
`running_seconds` and `window_seconds` of the status and `usual` and `seconds_expected` of a plan: these are runbook
seconds, of which `release.speed` pass in a real one in a rehearsal ([live_view.md](live_view.md)). Where a check of
a plan has failed, `error` and `exit_code` of a failure are added to it.
"""
_SIMPLE = {str: "text", bool: "true or false", int: "number", float: "number", NoneType: "null"}


def reference() -> str:
    """The whole page."""
    parts = [_HEAD]
    for command, model in OBJECTS.items():
        parts.append(f"## {command}\n\n{_table(model)}")
    models, words = _parts()
    parts.append("## Parts\n\nWhat the objects above are made of.")
    parts += [f"### {model.__name__}\n\n{_table(model)}" for model in models]
    parts.append("## Words\n\nWhat a field that is one of several words can be.")
    parts += [f"### {kind.__name__}\n\n{_words(kind)}" for kind in words]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def field_lines() -> Iterator[str]:
    """Each field with its type, one a line: what a version promises."""
    models, words = _parts()
    for model in [*OBJECTS.values(), *models]:
        for name, kind in _typed_fields(model):
            yield f"{model.__name__}.{name}: {kind}"
    for enum in words:
        yield from (f"{enum.__name__} {word}" for word in enum)


def documented_keys(model: type[Any]) -> set[str]:
    """The keys that an object of this model has in JSON."""
    return {name for name, _ in _typed_fields(model)}


def _parts() -> tuple[list[type[Any]], list[type[StrEnum]]]:
    """The models and the enums that the objects are made of, by name."""
    found: dict[str, type[Any]] = {}
    for model in OBJECTS.values():
        _collect(model, found)
    inner = [found[name] for name in sorted(found) if found[name] not in OBJECTS.values()]
    return [each for each in inner if is_dataclass(each)], [
        each for each in inner if issubclass(each, StrEnum)
    ]


def _collect(model: type[Any], into: dict[str, type[Any]]) -> None:
    if into.setdefault(model.__name__, model) is not model:
        raise ValueError(f"two models of the JSON are called {model.__name__}: rename one")
    if is_dataclass(model):
        for annotation in _hints(model).values():
            for kind in _classes_in(annotation):
                if into.get(kind.__name__) is not kind:
                    _collect(kind, into)


def _classes_in(annotation: Any) -> Iterator[type[Any]]:
    if isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, StrEnum)):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes_in(inner)


def _hints(model: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(model)
    return {each.name: hints[each.name] for each in fields(model)}


def _typed_fields(model: type[Any]) -> list[tuple[str, str]]:
    version = [("schema_version", "number")] if model in OBJECTS.values() else []
    computed = [
        (name, _type(get_type_hints(getattr(model, name).fget)["return"]))
        for name in _COMPUTED.get(model, ())
    ]
    return [*version, *((json_name(name), _type(hint)) for name, hint in _hints(model).items()), *computed]


def _table(model: type[Any]) -> str:
    meanings = {"schema_version": "The version of this page.", **_meanings(model)}
    for name in _COMPUTED.get(model, ()):
        meanings[name] = " ".join((inspect.getdoc(getattr(model, name)) or "").split())
    lines = [_sentence(model), "", "| field | type | meaning |", "|---|---|---|"]
    for name, kind in _typed_fields(model):
        lines.append(f"| `{name}` | {kind} | {meanings.get(name, '')} |")
    return "\n".join(lines)


def _words(kind: type[StrEnum]) -> str:
    meanings = _meanings(kind)
    lines = [_sentence(kind), "", "| word | meaning |", "|---|---|"]
    lines += [f"| `{word.value}` | {meanings.get(word.name, '')} |" for word in kind]
    return "\n".join(lines)


def _sentence(model: type[Any]) -> str:
    text = _null(model.__doc__ or "")
    return text if text.endswith((".", ":")) else f"{text}."


def _meanings(model: type[Any]) -> dict[str, str]:
    """The sentence below each field in the source of the model and of the classes that it extends."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__.partition(".")[0] not in ("handlers", "flows"):
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        name = ""
        for line in body.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = json_name(line.target.id)
            elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                name = line.targets[0].id
            elif name and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
                # A cell of a table: one line, and none of its signs.
                found[name] = _null(str(line.value.value)).replace("|", "or")
                name = ""
            else:
                name = ""
    return found


def _null(text: str) -> str:
    """A docstring on one line, in the words of JSON, which has no None."""
    return re.sub(r"\bNone\b", "null", " ".join(text.split()))


def _type(hint: Any) -> str:
    """A type in the words of JSON."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is tuple or origin is list:
            return f"list of {_type(arguments[0])}"
        case origin if origin in (dict, Mapping):
            return f"object of {_type(arguments[1])} by name"
        case origin if origin in (Union, UnionType):
            return " or ".join(_type(each) for each in arguments)
        case origin if origin is Literal:
            return "one of " + ", ".join(f"`{each}`" for each in arguments)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if isinstance(hint, type) and issubclass(hint, date):
        return "time"
    if isinstance(hint, type) and issubclass(hint, UUID | PurePath):
        return "text"
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, StrEnum)):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return "any"


if __name__ == "__main__":
    sys.stdout.write(reference())
