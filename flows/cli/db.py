"""The commands `runbook db …`: migrate our own schema, and add to the ERP's tables."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows.cli.app import db_app
from flows.cli.options import EnvironmentOption, JsonOption
from flows.cli.output import confirm, console, print_json
from flows.cli.session import open_database
from handlers.environment.load import load_environment
from handlers.erp.adopt import adopt, warnings
from handlers.errors import ExitCode


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
