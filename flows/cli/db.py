"""The commands `runbook db …`: migrate and prune our own schema, and add to the ERP's tables."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import db_app
from flows.cli.options import EnvironmentOption, JsonOption
from flows.cli.output import confirm, console, print_json
from flows.cli.session import open_database, raise_if_no_ledger
from handlers.environment.load import load_environment
from handlers.erp.adopt import adopt, warnings
from handlers.errors import ExitCode
from handlers.release.prune import DAYS, DAYS_MIN, Pruned, prune


@db_app.command("upgrade", short_help="create or migrate our own schema")
def upgrade(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Create or migrate our own schema `runbook`; changes nothing of the ERP's."""
    # Imported here, because Alembic is slow to import and only this command needs it.
    from handlers.database import migrate

    async def execute() -> int:
        async with open_database(load_environment(environment)) as database:
            applied = await migrate.upgrade(database)
        if json:
            print_json({"applied": applied})
        else:
            console().print(f"applied {', '.join(applied)}" if applied else "the ledger is up to date")
        return ExitCode.GOOD

    return asyncio.run(execute())


@db_app.command("adopt", short_help="add to the ERP's tables what the core needs")
def adopt_(
    environment: EnvironmentOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the DDL without running it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Add to the ERP's tables what the core needs: prints the DDL first, only adds, and is idempotent."""

    async def execute() -> int:
        async with open_database(load_environment(environment)) as database:
            missing = await adopt(database, dry_run=True)
            narrow = await warnings(database)
            if not json:
                for statement in missing:
                    console().print(f"{statement};")
                for sentence in narrow:
                    console().print(f"Warning: {sentence}")
            if dry_run or not missing:
                print_json({"ddl": missing, "warnings": narrow, "done": False}) if json else console().print(
                    "nothing to adopt: the tables have all that the core needs"
                    if not missing
                    else "nothing was changed"
                )
                return ExitCode.GOOD
            confirm(f"run these {len(missing)} statements?", yes=yes)
            added = await adopt(database)
        print_json({"ddl": added, "warnings": narrow, "done": True}) if json else console().print(
            f"ran {len(added)} statements"
        )
        return ExitCode.GOOD

    return asyncio.run(execute())


@db_app.command("prune", short_help="drop old details from the ledger")
def prune_(
    environment: EnvironmentOption,
    days: Annotated[
        int, typer.Option("--days", min=DAYS_MIN, max=36_500, help="Keep the details of so many days.")
    ] = DAYS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be dropped; changes nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Drop old details: what the gate was told of single events, printed output, sent messages. Releases stay."""

    async def execute() -> int:
        settings = load_environment(environment)
        async with open_database(settings) as database:
            await raise_if_no_ledger(database, settings)
            pruned = await prune(database, settings.name, days=days, dry_run=True)
            if not dry_run and not pruned.is_empty:
                if not json:
                    console().print(_sentence(pruned))
                confirm(f"drop it from the ledger of {settings.name}?", yes=yes)
                pruned = await prune(database, settings.name, days=days)
        print_json(pruned.as_json()) if json else console().print(_sentence(pruned))
        return ExitCode.GOOD

    return asyncio.run(execute())


def _sentence(pruned: Pruned) -> str:
    if pruned.is_empty:
        return f"nothing to drop: the ledger has no details that are older than {pruned.days} days"
    verb = "dropped" if pruned.done else "to drop"
    return (
        f"{verb}, older than {pruned.days} days: details of releases: {len(pruned.releases)}"
        f" ({pruned.detail_bytes / 1e6:.1f} MB), messages: {pruned.messages}, runs of syncs: {pruned.syncs},"
        f" events of healing: {pruned.healed}, workers that are gone: {pruned.workers}"
    )
