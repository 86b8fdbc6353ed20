"""A release whose live traffic is looked at, on a real queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.environment.load import load_environment
from handlers.gate.day_before import DayBefore
from handlers.gate.values import Judgement
from handlers.phases import looking
from handlers.phases.looker import Looker
from handlers.queue import limits, settle
from handlers.queue.event import ErrorClass
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.queue.events import APPLIED, claim, event, failure
from tests.integration.release.steps import deploying, plan_of

FROM, TO = "a" * 40, "b" * 40
WHOLE_WATCH = 1800.0
FILE = """
name = "{name}"
{more}
[database]
url = "{url}"
[ssh]
user = "nobody"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
"""


@asynccontextmanager
async def looked_at(
    folder: Path,
    database_url: str,
    *,
    more: str = "",
    after: str = "",
    before: DayBefore | None = None,
    since: float = 0,
    phase: Phase = Phase.WATCHING,
) -> AsyncIterator[tuple[Core, Release, Looker]]:
    """A release in *phase*, whose workers started *since* seconds ago, and who looks at it."""
    path = folder / "looked.toml"
    url = make_url(database_url).render_as_string(hide_password=False)
    path.write_text(FILE.format(name="looked", url=url, more=more) + after, encoding="utf-8")
    async with open_core(load_environment(str(path))) as core:
        plan = replace(plan_of("looked"), day_before=before)
        run = await deploying(
            core.database, release=await releases.begin(core.database, plan=plan, requested_by="ops-a")
        )
        way = (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING)
        for to in way[: way.index(phase) + 1]:
            run = await releases.enter(core.database, run, to, verdict=Verdict.PASS)
        async with core.database.begin() as tx:
            await tx.exec_driver_sql(
                f"UPDATE runbook.phase_record SET started_at = started_at - interval '{since} s',"
                f" finished_at = finished_at - interval '{since} s'"
            )
        yield core, run, await looking.begin(core, run)


async def look(core: Core, run: Release, looker: Looker, *, left: float = WHOLE_WATCH) -> Judgement:
    """One look, in the middle of the watch unless told otherwise."""
    return await looker.look(core, run, left=left)


async def taken(engine: AsyncEngine, *ids: UUID) -> None:
    """A worker takes these events, whatever the gate holds at this moment."""
    await limits.lift_all(engine)
    assert len(await claim(engine, "w", ids=list(ids))) == len(ids)


async def applied(engine: AsyncEngine, key: str, *, by: str = TO, **columns: Any) -> UUID:
    """An event that a worker of the revision *by* has applied."""
    id_ = await event(engine, key, **columns)
    await taken(engine, id_)
    async with engine.begin() as tx:
        await settle.complete(tx, owner="w", revision=by, results={id_: APPLIED})
    return id_


async def buried(
    engine: AsyncEngine,
    key: str,
    *,
    by: str = TO,
    message: str = "boom 17",
    error_class: ErrorClass = ErrorClass.PERMANENT,
    **columns: Any,
) -> UUID:
    """An event that a worker of the revision *by* has made a dead letter."""
    id_ = await event(engine, key, **columns)
    await taken(engine, id_)
    async with engine.begin() as tx:
        await settle.bury(tx, owner="w", revision=by, failures=[failure(id_, error_class, message)])
    return id_
