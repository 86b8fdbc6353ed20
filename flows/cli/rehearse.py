"""The command that rehearses."""

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
    from flows.local.rehearse import Rehearsed


@app.command()
def rehearse(
    story: Annotated[
        str, typer.Argument(help="good, sick, treacherous, slow, empty or failed-only.")
    ] = "good",
    speed: Annotated[
        float, typer.Option("--speed", min=1, max=600, help="Runbook seconds of waiting in a real one.")
    ] = 60.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the target running and say how to look at it and end it.")
    ] = False,
    end: Annotated[str, typer.Option("--end", help="End a target that was kept, by its id.")] = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    """Rehearse a whole release on a real target on this machine: no root, no service, nothing left behind."""
    require_rehearsal("a rehearsal")
    out = None if json else console(plain=plain)
    if end:
        return _end(end, json=json)
    return _rehearse(story, speed=speed, keep=keep, out=out)


def _end(target_id: str, *, json: bool) -> ExitCode:
    from rehearsal import lifecycle

    if not lifecycle.end(target_id):
        kept = ", ".join(lifecycle.kept()) or "none"
        raise Refused(f"there is no kept rehearsal {target_id!r}; kept: {kept}")
    if json:
        print_json({"ended": target_id, "exit_code": 0})
    else:
        console().print(f"rehearsal {target_id} is ended and its folder removed")
    return ExitCode.GOOD


def _rehearse(story: str, *, speed: float, keep: bool, out: Console | None) -> int:
    # Imported here: it loads Prefect's server and the rehearsal, which no other command needs.
    from flows.local.rehearse import ENDS, rehearse

    if story not in ENDS:
        raise Refused(f"there is no story {story!r}: it may be {', '.join(ENDS)}")
    try:
        done: Rehearsed = asyncio.run(rehearse(story, speed=speed, keep=keep, out=out))
    except KeyboardInterrupt:
        sys.stderr.write("runbook: the rehearsal was interrupted, and its target is removed\n")
        raise
    if out is None:
        print_json(done)
    else:
        _print(done, ENDS[story], out)
    return done.exit_code


def _print(done: Rehearsed, expected: int, out: Console) -> None:
    as_expected = (
        "as this story should end"
        if done.exit_code == expected
        else f"but this story should end with {expected}"
    )
    hosts = ", ".join(f"{name} runs {short(str(revision))}" for name, revision in done.hosts.items())
    events = ", ".join(f"{count} {status}" for status, count in done.events.items() if count)
    out.print(
        f"{done.story}: {done.outcome}, exit code {done.exit_code}, {as_expected}; {done.seconds:.0f} s; {hosts}"
    )
    out.print(f"queue: {events}")
    out.print(f"report: {done.report}")
