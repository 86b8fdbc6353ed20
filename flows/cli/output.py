"""The output of the commands: sentences for people, one JSON object for programs."""

from __future__ import annotations

import getpass
import sys
from typing import NoReturn

import typer
from rich.console import Console

from handlers.database.jsonable import as_json
from handlers.errors import ExitCode


def console(*, plain: bool = False) -> Console:
    """A console on stdout. *plain* has no colour and no redrawing, as in a pipe. Lines are never wrapped."""
    return Console(
        force_terminal=False if plain else None, highlight=False, soft_wrap=True, emoji=False, markup=False
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something changes, unless --yes was given. Raises typer.Abort without a clear yes.

    --json is no consent. The question is on stderr, so that stdout stays what a program reads.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)


def wants_json() -> bool:
    """Whether the command line has --json. Works also when the command line cannot be parsed."""
    return "--json" in sys.argv[1:]


def print_json(value: object) -> None:
    """Print one object on one line."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def fail(sentence: str, code: ExitCode) -> NoReturn:
    """Print the error (on stdout too, as JSON, with --json) and exit with *code*."""
    if wants_json():
        print_json(failure(sentence, code))
    sys.stderr.write(f"runbook: {sentence}\n")
    sys.exit(int(code))


def failure(sentence: str, code: ExitCode) -> dict[str, object]:
    """The keys that the JSON of every failed command has."""
    return {"error": sentence, "exit_code": int(code)}


def requester(by: str) -> str:
    """The name of the requester, for the ledger: the value of --by, else the login name."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def printable(text: str) -> str:
    """*text* on one line without control characters: what comes from a queue or a log must not move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def cut(text: str, width: int = 80) -> str:
    """*text* made printable, and no longer than *width*."""
    line = printable(text)
    return line if len(line) <= width else f"{line[: width - 3]}..."
