"""The Prefect page of a running release: names, tags, runs and artifacts. It may fail; a release never waits for it.

The ledger is the record of a release. Whatever is written here is a view of it, bounded in time, and left out while the
Prefect server does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext, SettingsContext, TaskRunContext, get_settings_context
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from handlers.release.phase import Release, short

log = logging.getLogger(__name__)

T = TypeVar("T")

BEGIN_SECONDS = 10.0
"""How long a phase waits at its start for a server that is slow; one on the same machine answers in 0.1 s."""
CALL_SECONDS = 30.0
"""How long a call in the background may take."""
QUIET_SECONDS = 30.0
"""After a call that failed, none is made for this time: an outage delays a release once, not at each phase."""
BUSY_SECONDS = 0.5
_BUSY = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS)
END_SECONDS = 10.0
"""How long the end of a release waits for what is still being written to the page."""
NAME_MAX = 200

_PAGE: ContextVar[Page | None] = ContextVar("page", default=None)


@dataclass(kw_only=True)
class Page:
    """The page of one release, as long as its flow run goes on."""

    client: PrefectClient
    settings: SettingsContext
    """Without Prefect's own retries. Made once: it takes 50 ms of the processor."""
    root: FlowRunContext
    """The run that a person started. The runs of the phases are below it."""
    phases: dict[str, FlowRunContext] = field(default_factory=dict)
    """The newest run of each kind of phase, such as `deploy`; also of one that has ended."""
    _silent_until: float = 0.0
    is_slow: bool = False
    """The server has kept a phase waiting."""
    _failed: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _open: set[asyncio.Task[object]] = field(default_factory=set)

    @property
    def root_id(self) -> UUID:
        """The run that a person started."""
        assert self.root.flow_run is not None
        return self.root.flow_run.id

    def ids(self, kind: str) -> tuple[UUID, ...]:
        """The run that a person started, and that of a phase where it has one."""
        phase = self.phases.get(kind)
        return (
            (self.root_id,) if phase is None or phase.flow_run is None else (self.root_id, phase.flow_run.id)
        )

    @contextmanager
    def within_phase(self, kind: str) -> Iterator[None]:
        """For what runs beside the phases: in the block it belongs to the phase of this kind."""
        with self.phases.get(kind, self.root).model_copy():
            yield

    async def ask(
        self, what: str, call: Callable[[PrefectClient], Awaitable[T]], *, seconds: float = CALL_SECONDS
    ) -> T | None:
        """The answer to a call; None where it failed or took too long. Never raises but for a cancel."""
        if monotonic() < self._silent_until:
            return None
        try:
            async with asyncio.timeout(seconds):
                return await self._insist(call)
        except Exception as error:
            # A server that is only slow is asked again; nobody waits for it a second time.
            if not isinstance(error, TimeoutError):
                self._silent_until = monotonic() + QUIET_SECONDS
            level = logging.DEBUG if self._failed else logging.WARNING
            self._failed = True
            log.log(level, "the Prefect page does not show %s: %s: %s", what, type(error).__name__, error)
            return None

    async def _insist(self, call: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """Call again while the server is busy. Prefect itself would do so for minutes where there is none, too.

        One call at a time: two that write at once disturb each other on SQLite, and phases are shown in their order.
        """
        async with self._turn:
            with self.settings.model_copy():
                while True:
                    try:
                        return await call(self.client)
                    except (httpx.HTTPStatusError, httpx.TransportError) as error:
                        if not _is_busy(error):
                            raise
                        await asyncio.sleep(BUSY_SECONDS)

    def soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it in the background."""
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def finish(self) -> None:
        """Wait a moment for what is being written, and give up what takes longer."""
        if self._open:
            _, late = await asyncio.wait(set(self._open), timeout=END_SECONDS)
            for task in late:
                task.cancel()


def _is_busy(error: httpx.HTTPStatusError | httpx.TransportError) -> bool:
    """Whether the same call may work in a moment. A connection that is refused means that there is no server."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _BUSY
    return not isinstance(error, httpx.ConnectError)


def page() -> Page | None:
    """The page of the release that this process runs; None without Prefect."""
    return _PAGE.get()


@asynccontextmanager
async def opened(run: Release, kind: str) -> AsyncIterator[Page | None]:
    """The page of a release for as long as the block runs: its run gets a name for people, and tags."""
    root = FlowRunContext.get()
    if root is None or root.flow_run is None or _PAGE.get() is not None:
        yield _PAGE.get()
        return
    client = get_client()
    try:
        async with asyncio.timeout(BEGIN_SECONDS):
            await client.__aenter__()
    except Exception as error:
        log.warning("the Prefect page shows no phases: %s: %s", type(error).__name__, error)
        yield None
        return
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        shown = Page(client=client, settings=get_settings_context(), root=root)
    token = _PAGE.set(shown)
    try:
        name, tags = (
            f"{kind} {run.id} {target_of(run)}"[:NAME_MAX],
            sorted({*root.flow_run.tags, *tags_of(run)}),
        )
        rename = partial(PrefectClient.update_flow_run, flow_run_id=root.flow_run.id, name=name, tags=tags)
        shown.soon(shown.ask("the name of the run", rename))
        yield shown
    finally:
        _PAGE.reset(token)
        await shown.finish()
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await client.__aexit__(None, None, None)
        except Exception as error:
            log.debug("the client of Prefect did not close: %s", error)


def target_of(run: Release) -> str:
    """The revision and the environment, as in the names of runs."""
    return f"{short(run.to_revision)} to {run.environment}"


def tags_of(run: Release) -> tuple[str, ...]:
    """The tags by which the page finds the runs of an environment, a revision and a release."""
    return run.environment, short(run.to_revision), run.id


def quiet() -> None:
    """Leave out Prefect's own line "Finished in state Completed()" of each step. A failure is still shown."""
    logging.getLogger("prefect.task_runs").setLevel(logging.WARNING)


def call_it(name: str) -> None:
    """Name the running step after its result, such as "Look 12: 59 of 60 succeeded"."""
    if (context := TaskRunContext.get()) is not None:
        context.task_run.name = name[:NAME_MAX]


def add_to_name(words: str) -> None:
    """Add to the name of the running step why it has ended."""
    if (context := TaskRunContext.get()) is not None:
        call_it(f"{context.task_run.name} ({words})")


def say(line: str, *run_ids: UUID) -> None:
    """Show a sentence as a log line of these runs. Prefect sends it from a thread of its own."""
    for run_id in run_ids:
        _lines().info("%s", line, extra={"flow_run_id": str(run_id)})


def _lines() -> logging.Logger:
    logger = logging.getLogger("prefect.flow_runs.release")
    if not logger.handlers:
        # The log of the process has its own lines.
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(APILogHandler())
    return logger


def key_of(*parts: str) -> str:
    """The key of an artifact: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
