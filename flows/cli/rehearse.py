"""The command `runbook rehearse`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.app import app
from flows.cli.options import JsonOption, PlainOption
from flows.cli.output import console, print_json
from flows.local.embedded import require_rehearsal
from handlers.errors import ExitCode, Refused
from handlers.release.phase import short

if TYPE_CHECKING:
    from flows.local.rehearse import RehearsalResult


@app.command()
def rehearse(
    story: Annotated[
        str, typer.Argument(help="One of: good, sick, treacherous, slow, empty, failed-only.")
    ] = "good",
    speed: Annotated[
        float,
        typer.Option(
            "--speed", min=1, max=600, help="Speed-up of the waits: runbook seconds for each real second."
        ),
    ] = 60.0,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the target running; prints how to inspect and remove it."),
    ] = False,
    end: Annotated[str, typer.Option("--end", help="Remove a kept target, by its id.")] = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Rehearse a whole release on a temporary target on this machine. Needs no root; leaves nothing behind."""
    require_rehearsal("a rehearsal")
    out = None if json else console(plain=plain)
    if end:
        return _end(end, json=json)
    return _rehearse(story, speed=speed, keep=keep, out=out)


def _end(target_id: str, *, json: bool) -> ExitCode:
    from rehearsal import lifecycle

    if not lifecycle.end(target_id):
        kept = ", ".join(lifecycle.kept()) or "none"
        raise Refused(f"no kept rehearsal has the id {target_id!r}; kept: {kept}")
    if json:
        print_json({"ended": target_id, "exit_code": 0})
    else:
        console().print(f"rehearsal {target_id} is stopped; its folder was removed")
    return ExitCode.GOOD


def _rehearse(story: str, *, speed: float, keep: bool, out: Console | None) -> int:
    # Imported here, because it loads Prefect's server and the rehearsal, which no other command needs.
    from flows.local.rehearse import EXIT_CODES, rehearse

    if story not in EXIT_CODES:
        raise Refused(f"unknown story {story!r}: choose one of {', '.join(EXIT_CODES)}")
    try:
        result: RehearsalResult = asyncio.run(rehearse(story, speed=speed, keep=keep, out=out))
    except KeyboardInterrupt:
        sys.stderr.write("runbook: rehearsal interrupted; its target was removed\n")
        raise
    if out is None:
        print_json(result)
    else:
        _print(result, EXIT_CODES[story], out)
    return result.exit_code


def _print(result: RehearsalResult, expected: int, out: Console) -> None:
    comparison = "as expected" if result.exit_code == expected else f"but expected {expected}"
    hosts = ", ".join(f"{name} runs {short(str(revision))}" for name, revision in result.hosts.items())
    events = ", ".join(f"{count} {status}" for status, count in result.events.items() if count)
    outcome = f"{result.outcome}, exit code {result.exit_code}, {comparison}"
    out.print(f"{result.story}: {outcome}; {result.seconds:.0f} s; {hosts}")
    out.print(f"queue: {events}")
    out.print(f"report: {result.report}")
