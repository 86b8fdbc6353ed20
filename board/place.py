"""One environment that the board serves: its file as it is now, a read-only database, and what was read of it."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from board import course, reading, record
from board.alert import Alert, away_alert
from board.alerts import alerts_of
from board.cached import Cached
from board.course import Drawn
from board.reading import Away, Reading, why
from board.record import Record
from board.since import Since
from handlers.core import Clock, Core, http_client
from handlers.database.engine import board_engine
from handlers.database.transaction import transaction
from handlers.environment import load
from handlers.environment.last_good import last_good
from handlers.environment.model import Environment
from handlers.environment.redact import known_secrets
from handlers.errors import ConfigError, Refused, RunbookError
from handlers.measurements import queue_view, window
from handlers.measurements.queue_view import QueueView
from handlers.queue.processing_times import Histogram
from handlers.status import snapshot
from handlers.status.view import StatusView

FRESH_SECONDS = 5.0
"""A reading is used for so long at least, and for ten times the time that it took."""
SLOW_FRESH_SECONDS = 20.0
"""The same for what needs a pass over many events: errors by fingerprint, the course of a day."""
SLOW_SECONDS = 12.0
RECORDS_MAX = 8
"""So many releases that somebody looks at are kept."""
COURSE = timedelta(days=1)
T = TypeVar("T")


class Place:
    """One environment. Everything that is read of it is read here, once for all who ask."""

    def __init__(self, name_or_path: str) -> None:
        self._source = name_or_path
        self._core: Core | None = None
        self._histogram = Histogram()
        self._changing = asyncio.Lock()
        self._one_slow_query = asyncio.Lock()
        self._since = Since()
        self._now = Cached(self._read, seconds=FRESH_SECONDS)
        self._letters = Cached(self._read_letters, seconds=SLOW_FRESH_SECONDS)
        self._course = Cached(self._read_course, seconds=SLOW_FRESH_SECONDS)
        self._drawn = Cached(self._draw, seconds=SLOW_FRESH_SECONDS)
        self._records: OrderedDict[str, Cached[tuple[StatusView, Record]]] = OrderedDict()

    @property
    def name(self) -> str:
        """The name of the environment; before its file was read, that of the file."""
        if self._core is not None:
            return self._core.environment.name
        return load.path_of(self._source).stem

    async def now(self, patience: float = 10.0) -> Reading:
        """What is known now. Raises Away or TryAgain."""
        return await self._now.get(patience)

    async def letters(self, patience: float = 15.0) -> QueueView:
        """The dead letters by error, and what failed last. Raises Away or TryAgain."""
        return await self._letters.get(patience)

    async def course(self, patience: float = 15.0) -> dict[str, Any]:
        """Success by type and the course of the last day. Raises Away or TryAgain."""
        return await self._course.get(patience)

    async def drawn(self, patience: float = 20.0) -> Drawn:
        """The course against the bars, as the report draws it. Raises Away or TryAgain."""
        return await self._drawn.get(patience)

    async def record(self, release_id: str, patience: float = 10.0) -> tuple[StatusView, Record]:
        """One release, whole. Raises Away or TryAgain, and Refused where there is none."""
        if release_id not in self._records:
            self._records[release_id] = Cached(lambda: self._read_record(release_id), seconds=FRESH_SECONDS)
        self._records.move_to_end(release_id)
        while len(self._records) > RECORDS_MAX:
            await self._records.popitem(last=False)[1].close()
        return await self._records[release_id].get(patience)

    async def alerts(self, patience: float = 10.0) -> list[Alert]:
        """What is broken now, the most urgent first. Never raises: that nothing can be read is an alert."""
        try:
            now = await self.now(patience)
            settings = (await self.core()).environment
        except RunbookError as error:
            self._since.of({"database"}, None)
            return [away_alert(self.name, str(error), self._since.first("database"))]
        return alerts_of(now, settings, self._since)

    async def core(self) -> Core:
        """The tools to read with; anew after a change of the file. Raises Away where it was never good."""
        async with self._changing:
            try:
                settings = await last_good(self._source)
            except ConfigError as error:
                raise Away(" ".join(str(error).split())) from error
            if self._core is None or self._core.environment != settings:
                former, self._core = self._core, await _core(settings)
                if former is not None:
                    await _close(former)
            return self._core

    async def secrets(self) -> frozenset[str]:
        """What is masked in everything that is shown. Of a file that was never good nothing is known or shown."""
        try:
            return known_secrets((await self.core()).environment)
        except Away:
            return frozenset()

    async def read(self, read: Callable[[AsyncConnection], Awaitable[T]], seconds: float = 5.0) -> T:
        """What *read* finds in one transaction of bounded time. Raises Away; Refused for what is not there."""
        core = await self.core()
        try:
            async with asyncio.timeout(seconds), transaction(core.database) as tx:
                await window.limit_time(tx, max(0.1, seconds - 0.5))
                return await read(tx)
        except (DBAPIError, TimeoutError) as error:
            raise Away(why(error, seconds)) from error

    async def close(self) -> None:
        """End what is being read, and close the connections."""
        for cached in (self._drawn, self._now, self._letters, self._course):
            await cached.close()
        for record_ in self._records.values():
            await record_.close()
        if self._core is not None:
            await _close(self._core)

    async def _read(self) -> Reading:
        return await reading.read(await self.core(), self._histogram)

    async def _read_letters(self) -> QueueView:
        environment = (await self.core()).environment

        async def read(tx: AsyncConnection) -> QueueView:
            return await queue_view.read(tx, environment, None, has_ledger=False)

        async with self._one_slow_query:
            return await self.read(read, SLOW_SECONDS)

    async def _read_course(self) -> dict[str, Any]:
        async with self._one_slow_query:
            return await self.read(lambda tx: course.of_day(tx, self.name), SLOW_SECONDS)

    async def _draw(self) -> Drawn:
        now = await self.now()
        run = now.release.view.release if now.release is not None else None
        async with self._one_slow_query:
            found = await self.read(lambda tx: course.of_release(tx, self.name, run), SLOW_SECONDS)
        return await course.draw(found, (await self.core()).environment.bars)

    async def _read_record(self, release_id: str) -> tuple[StatusView, Record]:
        core = await self.core()
        found = await self.read(lambda tx: record.read(tx, self.name, release_id))
        return await snapshot.read(core.database, self.name, release_id), found


async def _core(settings: Environment) -> Core:
    return Core(
        environment=settings,
        database=board_engine(settings.database),
        # The board asks no host; the reading functions take a whole core.
        http=http_client(settings.probe),
        clock=Clock(),
        random=random.Random(),
    )


async def _close(core: Core) -> None:
    await core.http.aclose()
    await core.database.dispose()


@asynccontextmanager
async def open_places(names: list[str], *, named: bool = True) -> AsyncIterator[dict[str, Place]]:
    """The environments by name, closed at the end.

    Raises Refused for a file that cannot be used where a person has *named* it. One of a whole folder is an alert of
    its own environment, and no reason not to serve the others.
    """
    places = [Place(name) for name in names]
    try:
        for place in places:
            try:
                await place.core()
            except Away as error:
                if named:
                    raise Refused(str(error)) from error
        yield {place.name: place for place in places}
    finally:
        for place in places:
            await place.close()
