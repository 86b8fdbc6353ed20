"""Commands about the database: our own schema, and additions to the ERP's tables."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import db_app
from flows.cli.options import EnvironmentOption, JsonOption
from flows.cli.output import console, print_json
from flows.cli.session import open_database
from handlers.environment.load import load_environment
from handlers.erp.adopt import adopt
from handlers.errors import ExitCode


@db_app.command("upgrade", short_help="make or migrate our own schema")
def upgrade(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Create or migrate our own schema `runbook`; touches nothing of the ERP's."""
    # Here, because it takes a while to import and nothing else needs it.
    from handlers.database import migrate

    async def go() -> int:
        async with open_database(load_environment(environment)) as database:
            applied = await migrate.upgrade(database)
        if json:
            print_json({"applied": applied})
        else:
            console().print(f"applied {', '.join(applied)}" if applied else "the ledger is up to date")
        return ExitCode.GOOD

    return asyncio.run(go())


@db_app.command("adopt", short_help="add to the ERP's tables what the core needs")
def adopt_(
    environment: EnvironmentOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the DDL and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Add to the ERP's tables what the core needs: additive, printed first, and repeatable."""

    async def go() -> int:
        async with open_database(load_environment(environment)) as database:
            wanted = await adopt(database, dry_run=True)
            if not json:
                for statement in wanted:
                    console().print(f"{statement};")
            if dry_run or not wanted:
                print_json({"ddl": wanted, "done": False}) if json else console().print(
                    "nothing to adopt: the tables have all that the core needs"
                    if not wanted
                    else "nothing was changed"
                )
                return ExitCode.GOOD
            if not yes and not json:
                typer.confirm(f"run these {len(wanted)} statements?", abort=True)
            done = await adopt(database)
        print_json({"ddl": done, "done": True}) if json else console().print(f"{len(done)} statements done")
        return ExitCode.GOOD

    return asyncio.run(go())
