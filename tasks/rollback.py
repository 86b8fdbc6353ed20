"""The steps of a rollback. Only the first and the last need the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.host.way_back import HostReturn
from handlers.phases import begin, one_way, rollback
from handlers.phases.rollback import Fleet, Try
from handlers.release.ledger.deferred import Unrecorded
from handlers.release.phase import Conclusion, Release
from handlers.report import evidence
from tasks.policy import CHANGE, KEEP, LOOK, step
from tasks.tools import tools


@step(KEEP, "Find the release to roll back")
async def candidate(environment: str, *, by: str, past_migrations: bool = False) -> Release:
    """The release that a rollback would undo; what lies on top of it is ended. Raises Refused when there is none.

    Also when the revision before does not survive its migrations, and nobody has said that it may go past them.
    """
    async with tools(environment) as core:
        found = await begin.rollback_candidate(core)
        await one_way.raise_if_one_way(core.database, found, past_migrations=past_migrations)
        await begin.clear_the_way(core, found, by=by)
        return found


@step(KEEP, "Ask whether the revision before survives")
async def why_not_back(run: Release) -> str:
    """Why this release is not taken back automatically; empty when it is."""
    async with tools(run) as core:
        return await one_way.why_not_back(core.database, run)


@step(LOOK, "List the hosts to take back")
async def fleet(run: Release) -> Fleet:
    """The hosts that must go back, and how long they are tried."""
    async with tools(run) as core:
        return await rollback.fleet(core, run)


@step(LOOK, "Save the evidence")
async def save_evidence(run: Release) -> str:
    """Save the evidence within ten seconds, then restore the dead letters that no worker has leased."""
    async with tools(run) as core:
        saved = await evidence.save(core, run)
        await rollback.restore_first(core, run)
        return saved.sentence


@step(CHANGE, "Take {before.host} back")
async def try_host(run: Release, before: HostReturn) -> Try:
    """One try to bring a host back."""
    async with tools(run) as core:
        return await rollback.try_host(core, run, before)


@step(CHANGE, "Start the workers that {host.host} had")
async def leave(run: Release, host: HostReturn) -> HostReturn:
    """Start the workers of a host that could not be switched; none is left stopped for nothing."""
    async with tools(run) as core:
        return await rollback.leave(core, run, host)


@step(LOOK, "Probe all hosts together")
async def look(run: Release, hosts: Sequence[HostReturn]) -> tuple[HostReturn, ...]:
    """Look at all hosts together; one that is not healthy is not back."""
    async with tools(run) as core:
        return await rollback.look(core, run, hosts)


@step(LOOK, "Ask which hosts answer")
async def answering(run: Release, names: Sequence[str]) -> tuple[str, ...]:
    """Which of these hosts can be reached now."""
    async with tools(run) as core:
        return await rollback.answering(core, names)


@step(LOOK, "Conclude the rollback")
async def conclude(
    run: Release,
    hosts: Sequence[HostReturn],
    *,
    why: str,
    evidence_sentence: str,
    unrecorded: Sequence[Unrecorded] = (),
) -> Conclusion:
    """Tell the ledger everything, and conclude the rollback."""
    async with tools(run) as core:
        return await rollback.conclude(
            core, run, hosts, why=why, evidence=evidence_sentence, unrecorded=unrecorded
        )
