"""A record of the queue that is independent of the release."""

from __future__ import annotations

from importlib.resources import files

from sqlalchemy.ext.asyncio import AsyncEngine


async def install_audit(engine: AsyncEngine) -> None:
    """Remember what is in the queue now, and note every change of a status from now on."""
    script = files(__package__).joinpath("audit.sql").read_text(encoding="utf-8")
    async with engine.begin() as tx:
        # A script of several statements needs the driver's own call.
        raw = await tx.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute(script)
