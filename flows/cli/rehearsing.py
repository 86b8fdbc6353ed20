"""The command that rehearses."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.options import JsonOption, PlainOption
from flows.cli.output import console, print_json
from handlers.errors import ExitCode, Refused
from handlers.release import short


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
    target = _target()
    if end:
        if not target.end(end):
            raise Refused(f"there is no kept rehearsal {end!r}; kept: {', '.join(target.kept()) or 'none'}")
        if json:
            print_json({"ended": end, "exit_code": 0})
        else:
            console().print(f"rehearsal {end} is ended and its folder removed")
        return ExitCode.GOOD
    stories = [one.value for one in target.Story]
    if story not in stories:
        raise Refused(f"there is no story {story!r}: it may be {', '.join(stories)}")

    from flows.rehearse import ENDS
    from flows.rehearse import rehearse as run

    out = None if json else console(plain=plain)
    try:
        done = asyncio.run(run(story, speed=speed, keep=keep, out=out))
    except KeyboardInterrupt:
        sys.stderr.write("runbook: the rehearsal was broken off, and its target is taken away\n")
        raise
    if json:
        print_json(done)
    else:
        shown = ", ".join(f"{name} runs {short(str(revision))}" for name, revision in done.hosts.items())
        events = ", ".join(f"{count} {status}" for status, count in done.events.items() if count)
        ends = ENDS[story]
        told = (
            "as this story should end" if done.exit_code == ends else f"but this story should end with {ends}"
        )
        console().print(
            f"{story}: {done.outcome}, exit code {done.exit_code}, {told}; {done.seconds:.0f} s; {shown}"
        )
        console().print(f"queue: {events}")
        console().print(f"report: {done.report}")
    return done.exit_code


def _target() -> ModuleType:
    """The rehearsal's parts are an extra: a production install has none of them."""
    try:
        from rehearsal import target
    except ImportError as error:
        raise Refused(
            f"a rehearsal needs more packages ({error.name} is missing): pip install 'tds-runbook[rehearsal]'"
        ) from error
    return target
