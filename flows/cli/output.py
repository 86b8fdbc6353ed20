"""What the commands print: sentences for people, one JSON object for programs."""

from __future__ import annotations

import dataclasses
import getpass
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from rich.console import Console

from handlers.errors import ExitCode


def console(*, plain: bool = False) -> Console:
    """A console on stdout; *plain* is what a pipe gets: no colour, nothing that moves, no line broken."""
    return Console(
        force_terminal=False if plain else None, highlight=False, soft_wrap=True, emoji=False, markup=False
    )


def wants_json() -> bool:
    """Whether the command line asks for JSON; known even when the command could not be parsed."""
    return "--json" in sys.argv[1:]


def print_json(value: object) -> None:
    """One object on one line."""
    sys.stdout.write(json.dumps(as_plain(value), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def fail(sentence: str, code: ExitCode) -> NoReturn:
    """Say what was wrong and end with its exit code."""
    if wants_json():
        print_json(failure(sentence, code))
    sys.stderr.write(f"runbook: {sentence}\n")
    sys.exit(int(code))


def failure(sentence: str, code: ExitCode) -> dict[str, object]:
    """What the JSON of every command that ends badly has in it."""
    return {"error": sentence, "exit_code": int(code)}


def person(given: str) -> str:
    """The name that the ledger keeps for whoever asks."""
    if given:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def as_plain(value: object) -> Any:
    """*value* as JSON can hold it: dataclasses as objects, times as ISO text, enums and ids as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    match value:
        case str():
            return str(value)
        case None | bool() | int() | float():
            return value
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): as_plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [as_plain(item) for item in value]
        case _:
            return str(value)
