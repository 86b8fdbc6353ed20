"""What a command needs to look into a ledger: the environment's settings and an engine, closed at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import engine
from handlers.environment.load import load_environment
from handlers.environment.model import Environment

T = TypeVar("T")


async def with_database(environment: str, go: Callable[[AsyncEngine, Environment], Awaitable[T]]) -> T:
    """Load the environment, open its database for *go*, and close it whatever happens."""
    settings = load_environment(environment)
    database = engine(settings)
    try:
        return await go(database, settings)
    finally:
        await database.dispose()
