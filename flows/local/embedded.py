"""The optional extra `rehearsal`, imported on demand: a production install does not have it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.errors import Refused
from handlers.process import signals_ignored


def require_rehearsal(what: str) -> None:
    """Raise Refused, with the install command, when the extra is missing. *what* names the feature that needs it."""
    try:
        import rehearsal.target  # noqa: F401
    except ImportError as error:
        raise Refused(
            f"{what} needs more packages ({error.name} is missing): pip install 'tds-runbook[rehearsal]'"
        ) from error


@asynccontextmanager
async def empty_erp_database() -> AsyncIterator[AsyncEngine]:
    """An embedded database with the ERP's adopted tables and no rows, removed at the end."""
    require_rehearsal("a trial without an environment")
    from rehearsal import empty

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tds-try-"))
        database = create_async_engine(await stack.enter_async_context(empty.database(Path(folder))))
        stack.push_async_callback(database.dispose)
        try:
            yield database
        finally:
            # A second Ctrl-C must not interrupt the removal of the server and its folder.
            with signals_ignored():
                await stack.aclose()
