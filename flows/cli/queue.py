"""The commands `runbook queue throttle` and `unthrottle`: throttle the queue."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import queue_app
from flows.cli.options import ByOption, EnvironmentOption, JsonOption, ReasonOption, parse_entity
from flows.cli.output import console, print_json, requester
from flows.cli.session import open_database
from handlers.environment.load import load_environment
from handlers.errors import ExitCode, Refused
from handlers.queue import limits as queue_limits


@queue_app.command("limit", hidden=True)
@queue_app.command("throttle", short_help="limit the events that workers take, for a limited time")
def throttle(
    environment: EnvironmentOption,
    per_ten_seconds: Annotated[
        int,
        typer.Option("--per-ten-seconds", min=0, help="Events allowed in ten seconds; 0 stops the queue."),
    ],
    entity: Annotated[
        str,
        typer.Option("--entity", help="Limit only this entity type; without it, all types together."),
    ] = "",
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=1, max=queue_limits.SECONDS_MAX, help="The limit expires after this time."
        ),
    ] = 300,
    by: ByOption = "",
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Throttle the queue: for a limited time, workers lease at most so many events in ten seconds."""
    entity_type = parse_entity(entity) if entity else None
    set_by = requester(by)
    if not reason:
        raise Refused("--reason is required: it tells others why the queue is throttled")

    async def execute() -> int:
        async with open_database(load_environment(environment)) as database:
            new_limit = await queue_limits.limit(
                database,
                entity_type,
                per_ten_seconds=per_ten_seconds,
                seconds=seconds,
                by=set_by,
                reason=reason,
            )
        print_json(new_limit) if json else console().print(f"limited to {new_limit.sentence}")
        return ExitCode.GOOD

    return asyncio.run(execute())


@queue_app.command("unlimit", hidden=True)
@queue_app.command("unthrottle", short_help="remove the limits")
def unthrottle(
    environment: EnvironmentOption,
    entity: Annotated[
        str, typer.Option("--entity", help="Remove only the limit of this entity type; without it, all.")
    ] = "",
    json: JsonOption = False,
) -> int:
    """Remove the limits of the queue. The gate of a release sets its own again at its next look."""
    entity_type = parse_entity(entity) if entity else None

    async def execute() -> int:
        async with open_database(load_environment(environment)) as database:
            lifted = await (
                queue_limits.lift_all(database)
                if entity_type is None
                else queue_limits.lift(database, entity_type)
            )
            remaining = await queue_limits.limits(database)
        if json:
            print_json({"lifted": lifted, "left": remaining})
        else:
            console().print(f"removed {len(lifted)} limits" if lifted else "there was no such limit")
            if any(limit.is_of_a_gate for limit in lifted):
                console().print("a gate sets its limit again at its next look, while its release is judged")
            for limit in remaining:
                console().print(f"still limited to {limit.sentence}")
        return ExitCode.GOOD

    return asyncio.run(execute())
