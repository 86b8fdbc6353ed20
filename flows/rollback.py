"""The rollback: every host goes back to the previous revision by itself, and is tried until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import TypeVar

from prefect import flow
from prefect.client.schemas.objects import State

from flows.announce import announce, announce_change
from flows.ending import as_state, failed, work
from flows.forms import EnvironmentName, OptionalReason, Person, Reason
from flows.phase_run import in_its_run
from flows.shown import shown
from flows.telling import tell_soon, telling
from flows.way_back import until_back
from handlers.errors import LEDGER_AWAY, LockLost, RunbookError
from handlers.host.way_back import HostReturn
from handlers.release.ledger.deferred import Unrecorded
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.release.topic import Topic
from tasks import ledger, looking, report
from tasks import rollback as back
from tasks.lock import held

TELL_EVERY = 20
"""After so many tries people are told once more of a host that is not back: about every five minutes."""

T = TypeVar("T")
U = TypeVar("U")


@flow(name="rollback", flow_run_name="roll back {environment}: {reason}")
async def rollback(  # noqa: PLR0917  A form has its fields.
    environment: EnvironmentName,
    reason: Reason,
    requested_by: Person,
    take_over: OptionalReason = "",
    blames_revision: bool = True,
    past_migrations: bool = False,
) -> State[None]:
    """Roll the newest release of an environment back to the previous revision.

    Args:
        environment: name of the environment file
        reason: why, in one sentence
        requested_by: name of the person who requests it
        take_over: the reason for taking the lock from a live controller
        blames_revision: whether the revision is quarantined, as one that must not be released again
        past_migrations: go back although the plan says that the previous revision does not survive a migration
    """
    try:
        with work():
            run = await roll_back(
                environment,
                reason=reason,
                requested_by=requested_by,
                take_over=take_over,
                blames_revision=blames_revision,
                past_migrations=past_migrations,
            )
    except RunbookError as error:
        return failed(error)
    return as_state(run)


async def roll_back(
    environment: str,
    *,
    reason: str,
    requested_by: str,
    take_over: str = "",
    blames_revision: bool = True,
    past_migrations: bool = False,
) -> Release:
    """Roll back the live, held or newest finished release. Raises Refused when there is none to roll back."""
    run = await back.candidate(environment, by=requested_by, past_migrations=past_migrations)
    async with telling(environment), held(run, take_over=take_over) as run, shown(run, "roll back"):
        if run.phase is not Phase.ROLLING_BACK:
            request = Conclusion(
                verdict=Verdict.FAIL,
                sentence=f"rollback requested by {requested_by}: {reason}",
                blames_revision=blames_revision,
            )
            back_to, run = run, await ledger.enter(run, Phase.ROLLING_BACK, request)
            announce_change(back_to, run)
        run = await undo(run)
        await report.write(run)
    return run


async def undo(run: Release, *, keep_trying_seconds: float | None = None) -> Release:
    """Save the evidence, restore the unfinished dead letters, and take every host back.

    A host that is not back is tried again for *keep_trying_seconds* (default: the environment's). Then the rollback has
    failed, until it is run again. Raises LockLost when another controller has taken the lock, and DatabaseDown when the
    ledger could not be told for minutes: the phase stays, and the next controller finds the hosts back.
    """
    return await in_its_run(run, lambda: _undo(run, keep_trying_seconds))


async def _undo(run: Release, keep_trying_seconds: float | None) -> Release:
    why = run.reason
    fleet = await back.fleet(run)
    seconds = fleet.keep_trying_seconds if keep_trying_seconds is None else keep_trying_seconds
    way = _WayBack(run, monotonic() + seconds)
    evidence, hosts = await _both(_evidence(run), way.go(fleet.hosts))
    try:
        conclusion = await back.conclude(
            run, hosts, why=why, evidence_sentence=evidence, unrecorded=way.unrecorded
        )
    except (LockLost, *LEDGER_AWAY):
        raise
    except RunbookError as error:
        sentence = f"the rollback could not be concluded: {error}; it was started because {why}"
        conclusion = Conclusion(verdict=Verdict.FAIL, sentence=sentence)
    end = Phase.ROLLED_BACK if conclusion.verdict is Verdict.PASS else Phase.ROLLBACK_FAILED
    ended = await ledger.enter(run, end, conclusion)
    announce_change(run, ended)
    return ended


async def _evidence(run: Release) -> str:
    """Keep what is queued from the workers to leave, then save what has happened; returns a sentence about it."""
    await looking.close_intake(run)
    return await back.save_evidence(run)


class _WayBack:
    """All hosts on their way back, each by itself: a host that hangs or is away does not hold up the others."""

    def __init__(self, run: Release, deadline: float) -> None:
        self._run = run
        self._deadline = deadline
        self.unrecorded: list[Unrecorded] = []
        """What the ledger could not be told yet."""

    async def go(self, hosts: Sequence[HostReturn]) -> tuple[HostReturn, ...]:
        """Take every host back, look at all of them together, and begin again with those that are not healthy."""
        while True:
            tried = tuple(await asyncio.gather(*(self._take_back(host) for host in hosts)))
            await looking.open_intake(self._run)
            hosts = await back.look(self._run, tried) if all(host.back for host in tried) else tried
            open_hosts = [host for host in hosts if not host.back and not host.gave_up]
            if not open_hosts or monotonic() >= self._deadline:
                return tuple(hosts)

    async def _take_back(self, host: HostReturn) -> HostReturn:
        host = await until_back(host, self._try, self._deadline, self._alarm)
        if host.back:
            tell_soon(
                self._run, Topic.BACK, f"{host.host} is back after {host.tries} tries", subject=host.host
            )
        return host if host.back or host.gave_up else await back.leave(self._run, host)

    def _alarm(self, host: HostReturn) -> None:
        announce(Topic.NOT_BACK, self._run, host=host.host, tries=host.tries, sentence=host.sentence)
        # One try may fail in any restart. What lasts is told again every few minutes.
        if host.tries == 2 or host.tries % TELL_EVERY == 0:
            sentence = f"{host.host} is not back after {host.tries} tries: {host.sentence}"
            tell_soon(self._run, Topic.NOT_BACK, sentence, subject=host.host, logged=True)

    async def _try(self, host: HostReturn) -> HostReturn:
        tried = await back.try_host(self._run, host)
        self.unrecorded += tried.unrecorded
        return tried.host


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Both results. When one fails, the other one is cancelled, and its error is ours."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
