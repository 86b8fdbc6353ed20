"""What a timer's command does: the same in one environment, or in all of the folder, each with its own result."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.options import RunOptions
from flows.cli.output import console, print_json
from flows.cli.session import open_database
from flows.telling import telling
from handlers.environment.last_good import last_good, names
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused, RunbookError

SEVERITY = (
    ExitCode.GOOD,
    ExitCode.HELD,
    ExitCode.ROLLED_BACK,
    ExitCode.REFUSED,
    ExitCode.OWN_ERROR,
    ExitCode.ROLLBACK_FAILED,
)
"""Of several environments the exit code that comes last here is the command's."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one environment."""

    environment: str
    exit_code: ExitCode
    sentence: str
    release: str | None = None
    due: bool = False
    """Whether there was anything to do."""
    outcome: dict[str, object] | None = None
    """What the command has to tell besides; None when nothing was done, or with --detach."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One environment of the command."""

    given: str
    """Its name, or the path of its file, as the command line has it."""
    settings: Environment
    database: AsyncEngine
    shown: bool
    """Whether a person sees this one alone, so that its progress may be printed."""


def in_each(environment: str | None, options: RunOptions, act: Callable[[Place], Awaitable[Result]]) -> int:
    """*act* in one environment, or in all of the folder. Prints each result, and returns the worst exit code."""
    environments = [environment] if environment else names()
    if not environments:
        raise Refused("there is no environment file: name one with --environment")
    return asyncio.run(_in_each(environments, options, act))


async def _in_each(
    environments: list[str], options: RunOptions, act: Callable[[Place], Awaitable[Result]]
) -> int:
    shown = len(environments) == 1 and not options.json
    results = await asyncio.gather(*(_in_one(name, act, shown=shown) for name in environments))
    code = max((result.exit_code for result in results), key=SEVERITY.index)
    if options.json:
        print_json({"environments": results, "exit_code": int(code)})
        return code
    for result in results:
        console(plain=options.plain).print(f"{result.environment}: {result.sentence}")
    return code


async def _in_one(environment: str, act: Callable[[Place], Awaitable[Result]], *, shown: bool) -> Result:
    """One environment. Its error is its result, so that it does not keep the others from theirs."""
    try:
        settings = await last_good(environment)
        async with telling(environment, timer=True), open_database(settings) as database:
            return await act(Place(given=environment, settings=settings, database=database, shown=shown))
    except RunbookError as error:
        if shown:
            raise
        sys.stderr.write(f"runbook: {environment}: {error}\n")
        return Result(environment=environment, exit_code=error.exit_code, sentence=str(error))
