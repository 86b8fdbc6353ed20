"""The commands `runbook queue quarantine` and `queue unblock`: dead letters that healing leaves alone."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import queue_app
from flows.cli.options import ByOption, EnvironmentOption, JsonOption, ReasonOption, parse_event
from flows.cli.output import console, print_json, requester
from flows.cli.session import open_database, raise_if_no_ledger
from handlers.database.transaction import transaction
from handlers.environment.last_good import last_good
from handlers.errors import ExitCode
from handlers.phases import heal_letters
from handlers.release.ledger import heal_stops


@queue_app.command("quarantine", short_help="keep healing from a dead letter, or from all like it")
def quarantine(
    environment: EnvironmentOption,
    event: Annotated[str, typer.Argument(metavar="ID", help="A dead letter.")],
    like: Annotated[
        bool, typer.Option("--like", help="Every dead letter of its type with the same error.")
    ] = False,
    by: ByOption = "",
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Keep healing from a dead letter until you unblock it. A release and `runbook drain` still take it."""
    id_ = parse_event(event)

    async def execute() -> int:
        settings = await last_good(environment)
        async with open_database(settings) as database:
            await raise_if_no_ledger(database, settings)
            async with transaction(database) as tx:
                letter = await heal_letters.letter(tx, id_)
                who = requester(by)
                number = await heal_stops.quarantine(
                    tx, settings.name, letter, like=like, by=who, reason=reason
                )
        kind = f"{letter.entity or letter.raw_type}, {letter.former or 'no error text'}"
        if json:
            print_json({"number": number, "kind": kind if like else None, "event": None if like else id_})
        else:
            console().print(f"number {number}: healing leaves {f'all of {kind}' if like else id_} alone")
        return ExitCode.GOOD

    return asyncio.run(execute())


@queue_app.command("lift", hidden=True)
@queue_app.command("unblock", short_help="let healing try what was in quarantine, or rests")
def unblock(
    environment: EnvironmentOption,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `runbook heal --dry-run` shows it.")],
    by: ByOption = "",
    json: JsonOption = False,
) -> int:
    """Let healing try dead letters again that are in quarantine, or that rest after a bad batch."""

    async def execute() -> int:
        settings = await last_good(environment)
        async with open_database(settings) as database:
            await raise_if_no_ledger(database, settings)
            lifted = await heal_stops.lift(database, settings.name, number, by=requester(by))
        if json:
            print_json({"lifted": lifted})
        else:
            console().print(f"healing may try them again: {lifted}")
        return ExitCode.GOOD

    return asyncio.run(execute())
