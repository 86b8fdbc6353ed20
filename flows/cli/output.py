"""What the commands print: sentences for people, one JSON object for programs."""

from __future__ import annotations

import getpass
import sys
from typing import NoReturn

from rich.console import Console

from handlers.database.jsonable import as_json
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
    sys.stdout.write(as_json(value) + "\n")
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
