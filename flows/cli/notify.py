"""`runbook notify`: send what is in the outbox, show it, and test the addresses. A timer sends."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.app import notify_app
from flows.cli.options import EnvironmentOption, JsonOption, OptionalEnvironmentOption
from flows.cli.output import console, print_json
from flows.cli.session import open_database, raise_if_no_ledger, with_database
from handlers.core import open_core
from handlers.database import migrate
from handlers.environment.last_good import last_good, names
from handlers.environment.model import Environment
from handlers.environment.notification import Severity
from handlers.errors import ExitCode, Refused, RunbookError
from handlers.notify import sender
from handlers.phases.neglected import tell_neglected
from handlers.release.ledger import outbox
from handlers.release.ledger.outbox import Entry
from handlers.release.topic import Topic

NO_ADDRESS = "{name} has no address in [notify]: add one (docs/environment.md explains it)"


@notify_app.callback(invoke_without_command=True)
def notify_(
    context: typer.Context,
    environment: OptionalEnvironmentOption = None,
    is_due: Annotated[
        bool, typer.Option("--due", help="Send what is due: in one environment, or in all. For a timer.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Send what people should hear of; `runbook notify list` shows it, `runbook notify test` tests the addresses."""
    if context.invoked_subcommand is not None:
        if is_due:
            raise Refused("--due is a command of its own: leave out the other one")
        return ExitCode.GOOD
    if not is_due:
        raise Refused(
            "say what to do: `runbook notify --due`, `runbook notify list` or `runbook notify test`"
        )
    environments = [environment] if environment else names()
    if not environments:
        raise Refused("there is no environment file: name one with --environment")
    return asyncio.run(_send_all(environments, json=json))


async def _send_all(environments: list[str], *, json: bool) -> int:
    alone = len(environments) == 1
    results = await asyncio.gather(*(_send_in(name, alone=alone) for name in environments))
    code = max(code for _, _, code in results)
    if json:
        lines = [{"environment": name, "sentence": said, "exit_code": code} for name, said, code in results]
        print_json({"environments": lines, "exit_code": code})
    for name, said, _ in results if not json else []:
        console(plain=True).print(f"{name}: {said}")
    return code


async def _send_in(environment: str, *, alone: bool) -> tuple[str, str, int]:
    """What was sent in one environment. Its error is its result, so that it does not keep the others from theirs."""
    try:
        settings = await last_good(environment)
        async with open_database(settings) as database:
            if not await migrate.upgrade_existing(database):
                return settings.name, "no message is due: it has no ledger", int(ExitCode.GOOD)
            async with open_core(settings) as core:
                await tell_neglected(core)
            sent = await sender.send_due(database, settings)
    except RunbookError as error:
        if alone:
            raise
        sys.stderr.write(f"runbook: {environment}: {error}\n")
        return environment, str(error), int(error.exit_code)
    code = ExitCode.HELD if sent.waiting or sent.given_up else ExitCode.GOOD
    return settings.name, sent.sentence, int(code)


@notify_app.command(
    "test", short_help="send one message of each severity, and say what each address answered"
)
def try_addresses(
    environment: EnvironmentOption,
    severity: Annotated[
        list[Severity] | None,
        typer.Option(
            "--severity", help="Only this severity; may be repeated. Default: each.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Send one message of each severity now, also in the quiet hours, and say what each address answered."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await raise_if_no_ledger(database, settings)
        if not settings.notify.addresses:
            raise Refused(NO_ADDRESS.format(name=settings.name))
        loud = settings.model_copy(
            update={"notify": settings.notify.model_copy(update={"quiet_from": None, "quiet_until": None})}
        )
        written = []
        for each in dict.fromkeys(severity or Severity):
            sentence = f"this is how {each} reaches you"
            id_ = await outbox.write(
                database, settings.name, Topic.TEST, sentence, subject=each, severity=each
            )
            written += [id_] if id_ is not None else []
        for id_ in written:
            await sender.send_due(database, loud, only=id_)
        entries = [
            each for each in await outbox.entries(database, settings.name, limit=100) if each.id in written
        ]
        good = all(each.state == "sent" for each in entries if each.address)
        code = ExitCode.GOOD if good else ExitCode.HELD
        if json:
            print_json({"messages": entries, "exit_code": int(code)})
            return code
        for entry in entries:
            console(plain=True).print(f"{entry.severity:<8} {entry.address or '-':<16} {_outcome(entry)}")
        return code

    return asyncio.run(with_database(environment, execute))


@notify_app.command("list", short_help="show what was sent, what waits, and what was given up")
def list_(
    environment: EnvironmentOption,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="So many of the newest messages.")
    ] = 20,
    json: JsonOption = False,
) -> int:
    """Show the newest messages, and what came of them at each address."""

    async def execute(database: AsyncEngine, settings: Environment) -> int:
        await raise_if_no_ledger(database, settings)
        entries = await outbox.entries(database, settings.name, limit=limit)
        if json:
            print_json({"messages": entries, "exit_code": 0})
            return ExitCode.GOOD
        if not entries:
            console(plain=True).print("nobody was told anything yet")
        for each in entries:
            words = f"{_time(each.written_at)}  {each.severity:<8} {each.topic:<24} {each.release_id or '-'}"
            console(plain=True).print(f"{words}  {each.address or '-'}: {_outcome(each)}")
        return ExitCode.GOOD

    return asyncio.run(with_database(environment, execute))


def _outcome(entry: Entry) -> str:
    """What came of a message at one address."""
    if entry.not_sent:
        return f"not sent: {entry.not_sent}"
    if entry.address is None:
        return "waiting: no sender has come by yet"
    if entry.state == "waiting" and entry.due_at is not None:
        tries = f" after {entry.tries} tries ({entry.answer})" if entry.tries else ""
        return f"waiting until {_time(entry.due_at)}{tries}"
    return f"{entry.state}: {entry.answer}" if entry.state == "given up" else entry.state


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %H:%M:%S}"
