"""What a command needs to look into a ledger: the environment's settings and an engine, closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import controller_engine
from handlers.environment.load import load_environment
from handlers.environment.model import Environment

T = TypeVar("T")


async def with_database(environment: str, go: Callable[[AsyncEngine, Environment], Awaitable[T]]) -> T:
    """Load the environment, open its database for *go*, and close it whatever happens."""
    settings = load_environment(environment)
    async with open_database(settings) as database:
        return await go(database, settings)


@asynccontextmanager
async def open_database(environment: Environment) -> AsyncIterator[AsyncEngine]:
    """An engine on the environment's database, disposed at the end."""
    database = controller_engine(environment.database)
    try:
        yield database
    finally:
        await database.dispose()
