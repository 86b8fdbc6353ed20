"""Deploying on the hosts of an environment: every change is recorded in the ledger and proven by a probe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handlers.core import Core
from handlers.environment.model import Host
from handlers.errors import Fenced, RunbookError
from handlers.host.facts import inspect
from handlers.host.fleet import roll_out
from handlers.host.health import FleetHealth, until_healthy
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import FENCED, HostChange
from handlers.phases.intake import hold_at_the_switch
from handlers.phases.probe import blaming_for_database, record_host_notes
from handlers.release.decisions import Verb
from handlers.release.ledger import intents, releases, requests
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.ledger.requests import Request
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict


async def deploy_release(core: Core, release: Release) -> Conclusion:
    """Deploy the released revision: first on one host until it is healthy, then on the others.

    A hold that a person asks for meanwhile takes effect before the next group of hosts. What has begun is finished.
    """
    change = await _host_change(core, release)
    asked: list[Request] = []
    async with open_hosts(core.environment) as shells:
        replaced = await _processes(shells, release.to_revision)

        async def healthy(hosts: Sequence[Host]) -> FleetHealth:
            chosen = [shell for shell in shells if shell.host in hosts]
            proven = await until_healthy(
                core,
                release.to_revision,
                hosts=hosts,
                shells=chosen,
                replaced=replaced,
                workers=False,
                on_look=record_host_notes(core, release),
            )
            return blaming_for_database(proven)

        async def must_pause() -> bool:
            asked[:] = await _holds(core, release)
            return bool(asked)

        try:
            rolled_out = await roll_out(
                shells, change, healthy, must_pause, lambda: hold_at_the_switch(core, release)
            )
        except Fenced as error:
            return await _fenced(core, release, error)
    # An earlier attempt of this release may have changed a host that this one has not reached.
    touched = rolled_out.touched_hosts or await has_touched(core, release)
    sentence = rolled_out.sentence
    return Conclusion(
        verdict=rolled_out.verdict,
        sentence=f"{asked[0].sentence}; {sentence}" if rolled_out.paused else sentence,
        touched_hosts=touched,
        blames_revision=rolled_out.blames_revision,
        held_by=HeldBy.OPERATOR if rolled_out.paused else HeldBy.GATE,
        note=PhaseNote(changed=touched, steps=rolled_out.steps),
    )


async def _holds(core: Core, release: Release) -> list[Request]:
    """The open requests to hold the release. While the ledger is away there are none: the next intent waits for it."""
    try:
        return [
            request for request in await requests.see(core.database, release) if request.verb is Verb.HOLD
        ]
    except RunbookError:
        return []


async def _fenced(core: Core, release: Release, error: Fenced) -> Conclusion:
    """A controller that is not in our ledger changes these hosts: hold when a host may be changed, otherwise fail.

    An automatic rollback would be useless: the host would refuse it as well.
    """
    touched = await has_touched(core, release)
    if touched:
        consequence = (
            "some hosts may be changed already: find the other controller, then run `runbook resume` "
            "or `runbook rollback`"
        )
    else:
        consequence = "nothing that runs has changed"
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE if touched else Verdict.FAIL,
        sentence=f"{error}; {consequence}",
        touched_hosts=touched,
        blames_revision=False,
        note=PhaseNote(changed=touched),
    )


async def has_touched(core: Core, release: Release) -> bool:
    """Whether the release started to change a running service. Preparing does not, nor does a fenced operation."""
    return any(
        operation.kind != "prepare" and operation.exit_status != FENCED
        for operation in await intents.operations(core.database, release)
    )


async def _host_change(core: Core, release: Release) -> HostChange:
    """The change that each host gets. Its attempt number grows with each resume by a person, but not when the
    controller restarts.
    """
    records = await releases.phase_records(core.database, release)
    assert release.token is not None
    return HostChange(
        release=release.id,
        token=release.token,
        revision=release.to_revision,
        recorder=LedgerRecorder(engine=core.database, release=release),
        attempt=max(1, sum(record.phase is Phase.DEPLOYING for record in records)),
    )


async def _processes(shells: Sequence[Shell], revision: str) -> dict[str, dict[str, str]]:
    """The processes that the deploy must replace, by host and unit. A host on *revision* already has none."""
    all_facts = await asyncio.gather(*(inspect(shell, tree="") for shell in shells))
    return {facts.host: facts.processes() for facts in all_facts if facts.revision != revision}
