"""What happens in the world while a story is told: what the released revision does not stand, or a blip."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


def give(folder: Path, name: str) -> None:
    """Let the sample ERP see that it has happened (`cue.given` in `rehearsal/erp/common`), from now on."""
    folder.mkdir(exist_ok=True)
    (folder / name).touch()


async def install_blip(engine: AsyncEngine) -> None:
    """Make the ERP's tables ready to refuse rows for a while."""
    script = files(__package__).joinpath("blip.sql").read_text(encoding="utf-8")
    async with engine.begin() as tx:
        # A script of several statements needs the driver's own call.
        raw = await tx.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute(script)


async def blip(engine: AsyncEngine, seconds: float) -> None:
    """Refuse the rows of most types for *seconds* from now on; by the database's clock it ends by itself."""
    begin = text(
        "INSERT INTO rehearsal.blip (until) VALUES (clock_timestamp() + make_interval(secs => :seconds))"
    )
    async with engine.begin() as tx:
        await tx.execute(begin, {"seconds": seconds})
