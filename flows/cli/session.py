"""The database of a command: the environment's settings, and an engine that is closed at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import migrate
from handlers.database.engine import controller_engine
from handlers.environment.last_good import last_good
from handlers.environment.load import env_option
from handlers.environment.model import Environment
from handlers.errors import Refused

T = TypeVar("T")


async def with_database(environment: str, execute: Callable[[AsyncEngine, Environment], Awaitable[T]]) -> T:
    """Call *execute* with the environment and an engine on its database, which is closed afterwards.

    For commands on what is in the ledger: while the file cannot be used, it is as it last was.
    """
    settings = await last_good(environment)
    async with open_database(settings) as database:
        return await execute(database, settings)


@asynccontextmanager
async def open_database(environment: Environment) -> AsyncIterator[AsyncEngine]:
    """An engine on the environment's database; it is disposed at the end."""
    database = controller_engine(environment.database)
    try:
        yield database
    finally:
        await database.dispose()


async def raise_if_no_ledger(database: AsyncEngine, settings: Environment) -> None:
    """Raise Refused where the ledger has to be made or migrated first."""
    if await migrate.pending(database):
        raise Refused(
            f"the ledger of {settings.name} is missing or outdated. "
            f"Run `runbook db upgrade {env_option(settings.name)}`; a release does it too."
        )
