"""The command `runbook rehearse`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from flows.cli.app import app
from flows.cli.options import JsonOption, PlainOption
from flows.cli.output import console, print_json
from flows.local.embedded import require_rehearsal
from handlers.errors import ExitCode, Refused
from handlers.release.phase import short

if TYPE_CHECKING:
    from flows.local.outcome import RehearsalResult
    from flows.local.rehearse import Rehearsal
    from rehearsal.faults.fault import Fault

STORIES = {
    "good": "everything is drained, the watch is healthy: exit code 0",
    "sick": "/health answers 503: rolled back, 2",
    "treacherous": "healthy, a good canary, but most items fail: rolled back, 2",
    "slow": "workers complete nothing: rolled back, 2",
    "empty": "no dead letter, a synthetic event tests the workers: 0",
    "failed-only": "only failed events: held, 4",
    "blip": "most rows are refused for 90 s of the watch, retries cure it: 0",
    "stall": "the workers hang from minute 3 of the watch: rolled back, 2",
    "one-type": "every payment dies, nothing else: rolled back, 2",
    "hopeless": "4 of 58 dead letters die of what they had died of: 0",
    "late": "everything dies from minute 20 of the watch: rolled back, 2",
    "known": "records succeed once, then all their webhooks die: rolled back, 2",
}
"""Each story and its end. Not from `rehearsal.story`, which production does not need to have."""

_HELP = """Rehearse a whole release on a temporary target on this machine. Needs no root; leaves nothing behind.

\b
Stories:
{stories}

With --fault it shows what a release does while something around it breaks. docs/faults.md lists every kind and what
must happen then. The exit code is the release's.""".format(
    stories="\n".join(f"{name:<12} {end}" for name, end in STORIES.items())
)


@app.command(help=_HELP)
def rehearse(
    story: Annotated[str, typer.Argument(help="One of the stories above.")] = "good",
    speed: Annotated[
        float,
        typer.Option(
            "--speed", min=1, max=600, help="Speed-up of the waits: runbook seconds for each real second."
        ),
    ] = 60.0,
    hosts: Annotated[
        int,
        typer.Option(
            "--hosts", min=1, max=50, help="How many hosts the target has. The workers of four take events."
        ),
    ] = 2,
    strategy: Annotated[
        Literal["checkout", "releases"],
        typer.Option("--strategy", help="How revisions get onto the hosts, as in deploy.strategy."),
    ] = "checkout",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            help="Break something: KIND@MOMENT[+DELAY][/HOST][:SECONDS], such as database-away@activate:20. "
            "Repeatable. `--fault list` prints the kinds and moments.",
        ),
    ] = None,
    faults: Annotated[
        int, typer.Option("--faults", min=0, max=20, help="Draw so many faults by chance.")
    ] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Number that draws them. Default: a random one, printed.")
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the target running; prints how to inspect and remove it."),
    ] = False,
    end: Annotated[str, typer.Option("--end", help="Remove a kept target, by its id.")] = "",
    json: JsonOption = False,
    plain: PlainOption = False,
) -> int:
    require_rehearsal("a rehearsal")
    out = None if json else console(plain=plain)
    if end:
        return _end(end, json=json)
    if fault == ["list"]:
        return _list()
    # Imported here, because it loads Prefect's server and the rehearsal, which no other command needs.
    from flows.local.rehearse import EXIT_CODES, Rehearsal

    if story not in EXIT_CODES:
        raise Refused(f"unknown story {story!r}: choose one of {', '.join(EXIT_CODES)}")
    if seed is not None and not faults:
        raise Refused("--seed draws nothing without --faults: say how many, such as --faults 2")
    wanted = Rehearsal(story=story, speed=speed, keep=keep, hosts=hosts, strategy=strategy)
    return _rehearse(_with_faults(wanted, fault or [], faults, seed), out=out)


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


def _list() -> ExitCode:
    from rehearsal.faults.fault import FORM, KINDS, MOMENTS

    print(f"{FORM}\n\nkinds:")
    for kind, about in KINDS.items():
        default = f" (default {about.seconds:g} s)" if about.seconds is not None else ""
        print(f"  {kind:<19} {about.what}{default}")
    print(f"\nmoments: {', '.join(MOMENTS)}")
    return ExitCode.GOOD


def _with_faults(wanted: Rehearsal, texts: list[str], count: int, seed: int | None) -> Rehearsal:
    """Add the faults that were named, and *count* drawn ones. Raises Refused where this machine cannot do one."""
    from rehearsal.faults import possible
    from rehearsal.faults.fault import draw, parse
    from rehearsal.story import Story
    from rehearsal.target import host_names

    names = host_names(wanted.hosts)
    chosen = [parse(text, names) for text in texts]
    for one in chosen:
        possible.raise_if_impossible(one)
    if count:
        seed = secrets.randbelow(1_000_000) if seed is None else seed
        story = Story(wanted.story)
        chosen += draw(count, seed, names, goes_back=story.goes_back, without=possible.impossible())
    possible.prepare(chosen)
    return replace(wanted, faults=tuple(chosen), seed=seed if count else None)


def _rehearse(wanted: Rehearsal, *, out: Console | None) -> int:
    from flows.local.rehearse import EXIT_CODES, rehearse

    if out is not None:
        for fault in wanted.faults:
            out.print(f"fault: {fault}{f' (seed {wanted.seed})' if wanted.seed is not None else ''}")
    try:
        result: RehearsalResult = asyncio.run(rehearse(wanted, out=out))
    except KeyboardInterrupt:
        sys.stderr.write("runbook: rehearsal interrupted; its target was removed\n")
        raise
    if out is None:
        print_json(result)
    else:
        _print(result, EXIT_CODES[wanted.story], wanted.faults, out)
    return result.exit_code


def _print(result: RehearsalResult, expected: int, faults: Sequence[Fault], out: Console) -> None:
    comparison = "as expected" if result.exit_code == expected else f"but expected {expected}"
    revisions = {short(str(revision)) for revision in result.hosts.values()}
    hosts = (
        f"all {len(result.hosts)} hosts run {revisions.pop()}"
        if len(revisions) == 1
        else ", ".join(f"{name} runs {short(str(revision))}" for name, revision in result.hosts.items())
    )
    events = ", ".join(f"{count} {status}" for status, count in result.events.items() if count)
    outcome = f"{result.outcome}, exit code {result.exit_code}, {comparison}"
    out.print(f"{result.story}: {outcome}; {result.seconds:.0f} s; {hosts}")
    out.print(f"queue: {events}")
    out.print(f"live webhooks: {result.received}, damaged by the release: {result.damaged}")
    for fault, one in zip(faults, result.faults, strict=True):
        at, ended_at = one["at"], one["ended_at"]
        when = f" at {at:%H:%M:%S}" if at else ""
        until = f", until {ended_at:%H:%M:%S}" if ended_at else ""
        out.print(f"fault {fault}: {one['outcome']}{when}{until}")
    if result.consistent:
        out.print("consistent: hosts, ledger and queue agree; no event was lost or applied twice")
    for sentence in result.inconsistencies:
        out.print(f"INCONSISTENT: {sentence}")
    out.print(f"report: {result.report}")
