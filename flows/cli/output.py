"""The output of the commands: sentences for people, one JSON object for programs."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from rich.console import Console

from flows.cli.schema_version import SCHEMA_VERSION
from handlers.database.jsonable import as_json, as_plain
from handlers.errors import ExitCode


class _Console(Console):
    """A console whose sentences name the environment of this command in each command that they advise."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(_addressed(each) if isinstance(each, str) else each for each in objects), **options)


def console(*, plain: bool = False) -> Console:
    """A console on stdout. *plain* has no colour and no redrawing, as in a pipe. Lines are never wrapped."""
    return _Console(
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
    """Print one object on one line, with the version of the JSON."""
    sys.stdout.write(as_json({"schema_version": SCHEMA_VERSION, **as_plain(value)}) + "\n")
    sys.stdout.flush()


_ADVISED: ContextVar[str | None] = ContextVar("advised", default=None)


@contextmanager
def advising(environment: str) -> Iterator[None]:
    """Let the commands that are advised in the block name *environment*, for a command with several of them."""
    token = _ADVISED.set(environment)
    try:
        yield
    finally:
        _ADVISED.reset(token)


def print_error(sentence: str) -> None:
    """Print an error on stderr."""
    sys.stderr.write(f"runbook: {_addressed(sentence)}\n")


def fail(sentence: str, code: ExitCode) -> NoReturn:
    """Print the error (on stdout too, as JSON, with --json) and exit with *code*."""
    sentence = _addressed(sentence)
    if wants_json():
        print_json(failure(sentence, code))
    sys.stderr.write(f"runbook: {sentence}\n")
    sys.exit(int(code))


def _addressed(sentence: str) -> str:
    """*sentence* with -e in the commands that it advises, where this command has got it as an option."""
    environment = _ADVISED.get() or _environment(sys.argv[1:])
    if environment is None or "`runbook " not in sentence:
        return sentence
    # Imported here: `runbook --help` does without the model of the environment file.
    from handlers.environment.advice import addressed

    return addressed(sentence, environment)


def _environment(arguments: Sequence[str]) -> str | None:
    """The environment of the command line. None without one: then RUNBOOK_ENVIRONMENT works for what is advised too."""
    for number, argument in enumerate(arguments):
        if argument in {"-e", "--environment"}:
            return arguments[number + 1] if number + 1 < len(arguments) else None
        for prefix in ("--environment=", "-e"):
            if argument.startswith(prefix):
                return argument.removeprefix(prefix)
    return None


def failure(sentence: str, code: ExitCode) -> dict[str, object]:
    """The keys that the JSON of every failed command has."""
    return {"error": sentence, "exit_code": int(code)}


def requester(by: str) -> str:
    """The name of the requester, for the ledger: the value of --by, else the login name."""
    return by or account()


def account() -> str:
    """The login name: a command is given under it, whatever name the person gives."""
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
