"""The command `runbook logs`: the logs of the hosts, read over SSH."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.options import EnvironmentOption, HostOption, JsonOption, SinceOption, parse_span
from flows.cli.output import console, print_json, printable
from handlers.core import open_core
from handlers.environment.last_good import last_good
from handlers.errors import ExitCode
from handlers.host import log_tail


@app.command("logs")
def logs_(
    environment: EnvironmentOption,
    host: HostOption = None,
    unit: Annotated[
        list[str] | None,
        typer.Option("--unit", help="Only this unit or log file; may be repeated.", show_default=False),
    ] = None,
    since: SinceOption = "1h",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=log_tail.LINES_MAX, help="The last lines of each log.")
    ] = 100,
    errors: Annotated[bool, typer.Option("--errors", help="Of these lines only those with errors.")] = False,
    json: JsonOption = False,
) -> int:
    """Print the last lines of the units' logs and of the log files of every host, without secrets.

    --since is for units; of a file the end is read, whatever its age. Exit code 4 when a log could not be read.
    """
    seconds = parse_span(since, least="1s")

    async def execute() -> int:
        async with open_core(await last_good(environment)) as core:
            found = await log_tail.read(
                core,
                since_seconds=seconds,
                lines=lines,
                hosts=host or (),
                units=unit or (),
                errors_only=errors,
            )
        good = not any(each.problem for each in found)
        if json:
            told = [
                {
                    "host": each.host,
                    "log": each.unit,
                    "lines": each.text.splitlines(),
                    "problem": each.problem,
                }
                for each in found
            ]
            print_json({"environment": core.environment.name, "good": good, "logs": told})
        else:
            for each in found:
                console().print(f"== {each.where}")
                for line in each.text.splitlines():
                    console().print(printable(line))
                if each.problem:
                    console().print(f"could not be read: {printable(each.problem)}")
                elif not each.text:
                    console().print("(nothing)")
        return ExitCode.GOOD if good else ExitCode.HELD

    return asyncio.run(execute())
