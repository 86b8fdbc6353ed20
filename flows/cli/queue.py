"""Commands about the queue, the ERP's tables and our schema."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import queue_app
from flows.cli.options import ByOption, EnvironmentOption, JsonOption, ReasonOption, entity_called
from flows.cli.output import console, person, print_json
from flows.cli.session import open_database
from handlers.database.transaction import transaction
from handlers.environment.load import load_environment
from handlers.errors import ExitCode, Refused
from handlers.queue import limits as queue_limits
from handlers.queue import look


@queue_app.command("show", short_help="count it by status, its dead letters by error")
def show(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Count the queue by status, and its dead letters by type and error; says what holds it back."""

    async def go() -> int:
        async with open_database(load_environment(environment)) as database, transaction(database) as tx:
            counts = await look.counts(tx)
            dead = await look.dead_letters(tx)
            limits = await queue_limits.limits(tx)
        groups: dict[tuple[str, str, str], int] = {}
        for letter in dead:
            group = (letter.entity or letter.raw_type, letter.error_code or "", letter.fingerprint)
            groups[group] = groups.get(group, 0) + 1
        if json:
            told = [
                {"entity": entity, "error_code": code, "error": error, "count": count}
                for (entity, code, error), count in sorted(groups.items())
            ]
            print_json({"status": counts, "dead_letters": told, "limits": limits})
            return ExitCode.GOOD
        for status, count in counts.items():
            console().print(f"{count:>8} {status}")
        for (entity, code, error), count in sorted(groups.items()):
            console().print(f"{count:>8} dead: {entity}, {code or 'no code'}: {error[:120]}")
        for each in limits:
            console().print(f"held back: {_limit_line(each)}")
        return ExitCode.GOOD

    return asyncio.run(go())


@queue_app.command("limit", short_help="let only so many events through, for a while")
def limit(
    environment: EnvironmentOption,
    per_ten_seconds: Annotated[
        int, typer.Option("--per-ten-seconds", min=0, help="So many events go through; 0 holds all.")
    ],
    entity: Annotated[
        str, typer.Option("--entity", help="Of this kind alone; without it of all kinds together.")
    ] = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=queue_limits.SECONDS_MAX, help="Then it ends by itself.")
    ] = 300,
    by: ByOption = "",
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Hold the queue back: workers take only so many events in each ten seconds, for a while."""
    kind = entity_called(entity) if entity else None
    who = person(by)
    if not reason:
        raise Refused("say with --reason why the queue is held back: others will wonder")

    async def go() -> int:
        async with open_database(load_environment(environment)) as database:
            set_ = await queue_limits.limit(
                database, kind, per_ten_seconds=per_ten_seconds, seconds=seconds, by=who, reason=reason
            )
        print_json(set_) if json else console().print(_limit_line(set_))
        return ExitCode.GOOD

    return asyncio.run(go())


@queue_app.command("unlimit", short_help="let it flow again")
def unlimit(
    environment: EnvironmentOption,
    entity: Annotated[
        str, typer.Option("--entity", help="Only the limit of this kind; without it every limit.")
    ] = "",
    json: JsonOption = False,
) -> int:
    """Let the queue flow again."""
    kind = entity_called(entity) if entity else None

    async def go() -> int:
        async with open_database(load_environment(environment)) as database:
            lifted = await (
                queue_limits.lift_all(database) if kind is None else queue_limits.lift(database, kind)
            )
            left = await queue_limits.limits(database)
        if json:
            print_json({"lifted": lifted, "left": left})
        else:
            console().print(f"lifted {len(lifted)}" if lifted else "there was no such limit in force")
            for each in left:
                console().print(f"still {_limit_line(each)}")
        return ExitCode.GOOD

    return asyncio.run(go())


def _limit_line(limit: queue_limits.Limit) -> str:
    of = f"of {limit.entity}" if limit.entity else "of all kinds together"
    return (
        f"{limit.per_ten_seconds} events {of} in each 10 s until {limit.until:%H:%M:%S} UTC, "
        f"by {limit.set_by}: {limit.reason}"
    )
