"""The environment of a release: its settings from the ledger, which are frozen when it is planned.

Only the database and the folder of the reports come from the environment file as it is now.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.engine import controller_engine
from handlers.database.jsonable import as_json
from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.environment import frozen, last_good
from handlers.environment.load import load_environment
from handlers.environment.model import Database, Environment
from handlers.errors import LEDGER_AWAY, ConfigError, Refused, RunbookError
from handlers.release.phase import Phase, Release

SQL = queries(__name__)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Frozen:
    """The settings of one release in this process."""

    environment: Environment | None
    """None for a release of an older ledger, which uses the file."""
    database: Database
    """Where the ledger with this release is."""


_FROZEN: dict[tuple[str, datetime], _Frozen] = {}
"""By id and creation time, because two ledgers may have the same ids. Settings never change, so they are read once."""


async def environment_of(release: Release) -> Environment:
    """The environment that *release* was planned with, to its end; database and reports as in the file now.

    While the file cannot be used, its last good version is. Raises ConfigError when there has been none, and
    DatabaseDown when the settings were never read on this machine and the database is away.
    """
    now = await last_good.last_good(release.environment)
    last_good.keep(release.environment)
    key = (release.id, release.created_at)
    known = _FROZEN.get(key)
    if known is None:
        try:
            known = _FROZEN[key] = await _read(release, now)
        except LEDGER_AWAY:
            # A rollback that is decided goes on without the ledger.
            if release.id not in last_good.kept_settings(release.environment):
                raise
            return await without_ledger(release.environment, release.id)
    elif now.database != known.database:
        if await _has(now.database, release):
            known = _FROZEN[key] = _Frozen(environment=known.environment, database=now.database)
        else:
            now = now.model_copy(update={"database": known.database})
    if known.environment is None:
        return now
    as_now = {name: getattr(now, name) for name in ("database", "reports", "notify", "freeze")}
    return known.environment.model_copy(update=as_now)


async def without_ledger(environment: str, release: str = "") -> Environment:
    """The environment of *release*, or of the newest release, for a rollback while the ledger is away.

    Its settings are those that this machine kept. Where it kept none, it is the environment file.
    """
    now = await last_good.last_good(environment)
    kept = last_good.kept_settings(environment)
    release = release or max(kept, key=age_order, default="")
    if release not in kept:
        return now
    for sentence in frozen.differences(kept[release], now):
        log.warning("release %s: %s", release, sentence)
    return await last_good.until_good(lambda: frozen.thaw(kept[release], now, release=release))


async def stored_settings(bind: Bind, release: Release) -> dict[str, Any] | None:
    """The settings of the release: of its plan, or adopted later. None for a release of an older ledger, without any.

    Raises Refused when the ledger has no such release: it is another ledger.
    """
    async with transaction(bind) as tx:
        values = {"id": release.id, "created_at": release.created_at}
        row = (await tx.execute(SQL["stored"], values)).one_or_none()
    if row is None:
        raise Refused(
            f"there is no release {release.id} of {release.created_at:%Y-%m-%d %H:%M} in this ledger"
        )
    return (json.loads(row.settings) if row.settings else None) or None


def age_order(release_id: str) -> tuple[str, int]:
    """The sort key of a release's id, oldest first: its day, and its number of that day."""
    day, _, number = release_id.partition(".")
    return day, int(number) if number.isdigit() else 0


async def differences_now(bind: Bind, release: Release) -> list[str]:
    """How the environment file differs now from the settings that the release keeps, one sentence for each.

    None for a release of an older ledger: it uses the file as it is.
    """
    stored = await stored_settings(bind, release)
    return frozen.differences(stored, await last_good.last_good(release.environment)) if stored else []


async def adopt(bind: Bind, release: Release, *, by: str) -> list[str]:
    """Give the release the settings of the environment file as it is now, for good; returns what that changes.

    For a release that cannot go on with its own: a host has another address, or a key is gone. Raises ConfigError when
    the file cannot be used, and Refused before the release has started: then a new plan is the way.
    """
    if release.phase in (Phase.PLANNED, Phase.APPROVED):
        raise Refused(f"release {release.id} has not started: run `runbook plan` with the changed file again")
    now, stored = load_environment(release.environment), await stored_settings(bind, release)
    changes = frozen.differences(stored, now, keeper="the release", keeps="had") if stored else []
    if changes:
        adopted = frozen.settings(now)
        record = as_json({"settings": adopted, "by": by, "differences": changes})
        async with transaction(bind) as tx:
            (await tx.execute(SQL["adopt_settings"], {"id": release.id, "adopted": record})).one()
        last_good.keep(release.environment, {release.id: adopted})
        _FROZEN.pop((release.id, release.created_at), None)
    return changes


async def _read(release: Release, now: Environment) -> _Frozen:
    engine = controller_engine(now.database)
    try:
        stored = await stored_settings(engine, release)
    finally:
        await engine.dispose()
    last_good.keep(release.environment, {release.id: stored} if stored else None)
    if stored is None:
        return _Frozen(environment=None, database=now.database)
    for sentence in frozen.differences(stored, now):
        log.warning("release %s: %s", release.id, sentence)
    try:
        environment = await last_good.until_good(lambda: frozen.thaw(stored, now, release=release.id))
    except ConfigError as error:
        raise ConfigError(
            f"{error}. Mend that, or let the release go on with the environment file as it is now: add --use-file "
            "to `runbook resume` or `runbook rollback`"
        ) from error
    return _Frozen(environment=environment, database=now.database)


async def _has(database: Database, release: Release) -> bool:
    """Whether the ledger of this release is there. The file may name another database by mistake."""
    engine: AsyncEngine = controller_engine(database)
    try:
        await stored_settings(engine, release)
    except RunbookError as error:
        log.warning(
            "the environment file names the database %s now, which has no release %s (%s); going on with the former",
            database.shown(),
            release.id,
            error,
        )
        return False
    finally:
        await engine.dispose()
    return True
