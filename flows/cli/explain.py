"""The commands that tell why: the arithmetic of each decision, the same decisions again, and those on a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption
from flows.cli.output import console, print_json
from handlers.errors import ExitCode, Refused
from handlers.gate import explain as arithmetic
from handlers.gate.again import Again, CannotJudgeError, Numbers, Replayed, Stored
from handlers.gate.told_file import LINE_BYTES_MAX, BadLineError, read
from handlers.gate.values import Finding

if TYPE_CHECKING:
    from handlers.release.phase import Release

ReleaseArgument = Annotated[
    str | None, typer.Argument(help="Id of a release. Default: the unfinished or newest one.")
]
_ENDS = {Finding.UNHEALTHY: ExitCode.ROLLED_BACK, Finding.HEALTHY: ExitCode.GOOD}


@app.command()
def explain(
    environment: EnvironmentOption,
    release: ReleaseArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every look, not only those that tell something new.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Print the arithmetic of a release's decisions, so that it can be redone by hand."""
    run, looks = asyncio.run(_looks(environment, release))
    chosen = {look.number for look in looks} if everything else arithmetic.worth_showing(looks)
    again, shown, broken = Again(), [], ""
    for look in looks:
        try:
            replayed = again.judge(look)
        except CannotJudgeError as error:
            broken = broken or str(error)
            if look.number in chosen:
                shown.append(_unexplained(look, error))
            continue
        if look.number in chosen:
            shown.append(arithmetic.explain(again, replayed))
    if json:
        print_json({"release": run.id, "looks": len(looks), "explained": shown})
        return ExitCode.GOOD
    console().print(f"release {run.id}  {run.phase.upper()}  {len(looks)} looks, {len(shown)} shown")
    for about in shown:
        console().print("")
        for line in arithmetic.lines(about) if "rule" in about else [about["sentence"]]:
            console().print(line)
    if not looks:
        console().print("nothing has been judged yet")
    return ExitCode.GOOD


@app.command()
def replay(
    release: ReleaseArgument = None,
    environment: Annotated[
        str,
        typer.Option(
            "--environment",
            "-e",
            help="Name of the environment file, or a path to one. Only --events needs none.",
            envvar="RUNBOOK_ENVIRONMENT",
        ),
    ] = "",
    events: Annotated[
        Path | None, typer.Option("--events", help="Judge this file of events or of a stream (JSON lines).")
    ] = None,
    ok: Annotated[
        float | None, typer.Option("--ok", help="A healthy release's success rate, as 0.95.")
    ] = None,
    tolerable: Annotated[
        float | None, typer.Option("--tolerable", help="The success rate that a person judges, as 0.90.")
    ] = None,
    bad: Annotated[
        float | None, typer.Option("--bad", help="The success rate that never passes, as 0.80.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="The risk of rolling back a healthy release, as 0.01.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Judge a release again from its stored inputs; with other numbers, say what would have happened.

    With --events it judges a file instead, without database and environment: exit code 0 passes, 2 rolls back, 4 is not
    decided.
    """
    numbers = Numbers(ok=ok, tolerable=tolerable, bad=bad, alpha=alpha)
    if events is not None:
        if release is not None:
            raise Refused("name a release or a file with --events, not both")
        return _judge_file(events, numbers, json=json)
    if not environment:
        raise Refused(
            "--environment is required: name the environment of the release, or a file with --events"
        )
    run, looks = asyncio.run(_looks(environment, release))
    if not looks:
        raise Refused(f"release {run.id} has not been judged yet: there is nothing to replay")
    replayed = _replayed(looks, numbers)
    differing = next((each for each in replayed if not each.is_same), None)
    ending = next((each for each in replayed if each.ends), None)
    if json:
        print_json(
            {
                "release": run.id,
                "looks": len(looks),
                "numbers": numbers.given,
                "same": differing is None,
                "first_difference": _difference(differing),
                "ends": None if ending is None else _told(ending),
            }
        )
    else:
        for line in _lines(replayed, differing, ending, asked=bool(numbers.given)):
            console().print(line)
    return ExitCode.GOOD if differing is None or numbers.given else ExitCode.OWN_ERROR


def _replayed(looks: list[Stored], numbers: Numbers) -> list[Replayed]:
    again = Again(numbers)
    try:
        return [again.judge(look) for look in looks]
    except CannotJudgeError as error:
        raise Refused(f"{error}; it was stored by another version, or by hand") from error
    except ValueError as error:
        raise Refused(f"these numbers cannot be used: {error}") from error


def _lines(
    replayed: list[Replayed], differing: Replayed | None, ending: Replayed | None, *, asked: bool
) -> Iterator[str]:
    if differing is None:
        yield f"same decisions: {len(replayed)} looks judged again, each with its finding and its sentence"
        if not asked:
            return
    else:
        yield f"first difference: look {differing.stored.number}{_minute(differing.stored)}"
        yield f"  stored  {differing.stored.finding}: {differing.stored.sentence}"
        yield f"  now     {differing.judgement.finding}: {differing.judgement.sentence}"
    if not asked:
        return
    if ending is None:
        yield f"with these numbers nothing is decided by look {len(replayed)}, the last one that is stored"
        return
    end = "rolled back" if ending.judgement.finding is Finding.UNHEALTHY else "passed"
    yield f"with these numbers it would have {'been ' if end != 'passed' else ''}{end} at look {ending.stored.number}"
    yield f"  {_minute(ending.stored).lstrip(', ') or ending.stored.rule}: {ending.judgement.sentence}"


def _minute(look: Stored) -> str:
    return f", minute {look.now / 60:.1f}" if look.now is not None else ""


def _difference(each: Replayed | None) -> dict[str, Any] | None:
    if each is None:
        return None
    stored = {"finding": each.stored.finding, "sentence": each.stored.sentence}
    return _told(each) | {"stored": stored}


def _told(each: Replayed) -> dict[str, Any]:
    now = each.stored.now
    return {
        "look": each.stored.number,
        "minute": None if now is None else now / 60,
        "finding": each.judgement.finding,
        "sentence": each.judgement.sentence,
    }


def _unexplained(look: Stored, error: CannotJudgeError) -> dict[str, Any]:
    return {
        "look": look.number,
        "finding": look.finding,
        "sentence": f"look {look.number}  {look.finding}: {look.sentence}\n  {error}",
    }


async def _looks(environment: str, release: str | None) -> tuple[Release, list[Stored]]:
    """A release, and everything that was judged about it in order."""
    # Imported here: a file is judged without any of it.
    from flows.cli.session import raise_if_no_ledger, with_database
    from handlers.release.ledger import releases
    from handlers.release.ledger.records import judgements

    async def execute(database: Any, settings: Any) -> tuple[Release, list[Stored]]:
        await raise_if_no_ledger(database, settings)
        if release is not None:
            run = await releases.get(database, release)
        else:
            found = await releases.live(database, settings.name) or await releases.latest(
                database, settings.name
            )
            if found is None:
                raise Refused(f"{settings.name} has had no release yet")
            run = found
        if run.environment != settings.name:
            raise Refused(f"release {run.id} belongs to {run.environment}, not to {settings.name}")
        records = await judgements(database, run)
        return run, [
            Stored(number=number, finding=each.finding, sentence=each.sentence, inputs=each.inputs)
            for number, each in enumerate(records, 1)
        ]

    return await with_database(environment, execute)


def _judge_file(path: Path, numbers: Numbers, *, json: bool) -> int:
    """Judge a file of events; its last decision is the exit code."""
    from handlers.gate.stream import judge_file

    try:
        with path.open("rb") as file:
            told = read(_cut(file))
        decisions = list(judge_file(told, numbers))
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error
    except BadLineError as error:
        raise Refused(f"{path}, {error}") from error
    except ValueError as error:
        raise Refused(f"these numbers cannot be used: {error}") from error
    if not decisions:
        raise Refused(f"{path}: its watch has no length, so nothing can be decided")
    last = decisions[-1]
    word = {Finding.UNHEALTHY: "rollback", Finding.HEALTHY: "promote"}.get(
        last.judgement.finding, "not decided"
    )
    if json:
        judged = {"decision": word, "minute": last.now / 60, "finding": last.judgement.finding}
        counts = {"decisions": len(decisions), "unknown_events": dict(told.unknown)}
        print_json(judged | {"sentence": last.judgement.sentence} | counts)
    else:
        for kind, number in sorted(told.unknown.items()):
            console().print(f"ignored {number} events of the unknown kind {kind!r}")
        console().print(f"{word}  minute {last.now / 60:.1f}  {last.judgement.sentence}")
    return _ENDS.get(last.judgement.finding, ExitCode.HELD)


def _cut(file: BinaryIO) -> Iterator[bytes]:
    """The lines of the file, never more of one than tells that it is too long."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        yield line
