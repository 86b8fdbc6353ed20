"""Migrate the ledger's schema (`runbook`) with Alembic, to the version of the installed code.

Alembic is imported where a migration is missing: it takes longer than the rest of a command like `status`.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.database.sqlstate import NOT_PERMITTED, message_of, sqlstate
from handlers.database.transaction import transaction
from handlers.errors import Refused

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

SCHEMA = "runbook"
_ADVISORY_KEY = 0x7D5_1ED6E2
"""The key of the advisory lock that serializes concurrent upgrades. Any fixed number works."""
_ALEMBIC_LOCK = threading.Lock()
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)


class _VersionTable(TypedDict):
    version_table: str
    version_table_schema: str


VERSION_TABLE: _VersionTable = {"version_table": "alembic_version", "version_table_schema": SCHEMA}


async def upgrade(engine: AsyncEngine) -> list[str]:
    """Apply every missing migration, and return their names in order; empty when the schema is up to date.

    All migrations run in one transaction: an interruption leaves the schema unchanged.
    """
    async with _alembic(), transaction(engine) as tx:
        return await tx.run_sync(_upgrade)


@asynccontextmanager
async def _alembic() -> AsyncIterator[None]:
    """Serialize the use of Alembic in this process: it keeps the current connection in module globals."""
    while not _ALEMBIC_LOCK.acquire(blocking=False):  # noqa: ASYNC110  Event loops of other threads wait too.
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        _ALEMBIC_LOCK.release()


async def pending(engine: AsyncEngine) -> list[str]:
    """The migrations that `upgrade` would apply. Only reads."""
    async with transaction(engine) as tx:
        if await _version(tx) == newest():
            return []
        return await tx.run_sync(lambda connection: _missing(connection, _script(_config())))


async def upgrade_existing(engine: AsyncEngine) -> bool:
    """Migrate a ledger of an older version; False when there is none, and then none is created.

    For commands that act on an existing release: a newer program must be able to end what an older one began.
    """
    missing = await pending(engine)
    if not missing:
        return True
    if len(missing) == len(list(_script(_config()).walk_revisions())):
        return False
    await upgrade(engine)
    return True


def newest() -> str:
    """The name of the newest migration; each is named as its file."""
    folder = files("handlers.database.migrations.versions")
    return max(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".sql"))


async def _version(tx: AsyncConnection) -> str | None:
    """The name of the newest applied migration; None without a ledger."""
    table = f"{SCHEMA}.{VERSION_TABLE['version_table']}"
    if (await tx.execute(text("SELECT to_regclass(:name)"), {"name": table})).scalar() is None:
        return None
    return (await tx.execute(text(f"SELECT max(version_num) FROM {table}"))).scalar()


def execute_file(name: str) -> None:
    """Run the SQL file of a migration, statement by statement, because asyncpg executes only one at a time."""
    from alembic import op

    source = files("handlers.database.migrations.versions").joinpath(name).read_text(encoding="utf-8")
    for statement in _COMMENT.sub("", source).split(";"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def _script(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", str(Path(str(files("handlers.database") / "migrations"))).replace("%", "%%")
    )
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> list[str]:
    from alembic import command

    config = _config(connection)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
    _create_schema(connection)
    missing = _missing(connection, _script(config))
    if missing:
        command.upgrade(config, "head")
    return missing


def _create_schema(connection: Connection) -> None:
    # Checked first, because IF NOT EXISTS requires the CREATE privilege even if the schema exists.
    if connection.execute(text("SELECT to_regnamespace(:schema)"), {"schema": SCHEMA}).scalar() is not None:
        return
    try:
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
    except ProgrammingError as error:
        if sqlstate(error) != NOT_PERMITTED:
            raise
        raise Refused(
            f"the database user may not create the schema {SCHEMA} ({message_of(error)}): "
            "GRANT CREATE ON DATABASE … TO the user, or create the schema and make the user its owner"
        ) from error


def _missing(connection: Connection, script: ScriptDirectory) -> list[str]:
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts=dict(VERSION_TABLE))
    applied = context.get_current_heads()
    unknown = set(applied) - {step.revision for step in script.walk_revisions()}
    if unknown:
        raise Refused(
            f"the ledger in this database was migrated by a newer runbook (step {', '.join(sorted(unknown))}): "
            "use that version"
        )
    steps = script.iterate_revisions("head", applied or "base")
    return [step.revision for step in reversed(list(steps))]
