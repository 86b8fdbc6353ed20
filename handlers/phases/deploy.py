"""A release on its hosts: forward to the released revision, or back to the one before, written down and proven."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handlers.core import Core
from handlers.environment.model import Host
from handlers.errors import Fenced
from handlers.host.facts import inspect
from handlers.host.fleet import roll_out
from handlers.host.health import FleetHealth, until_healthy
from handlers.host.ssh import Shell, open_hosts
from handlers.host.step import FENCED, HostChange
from handlers.phases.probe import keep_looks
from handlers.release.ledger import intents, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Phase, Release, Verdict


async def deploy_release(core: Core, release: Release) -> Conclusion:
    """Deploy the released revision: one host first, proven by its own answer, then the others."""
    change = await host_change(core, release, back=False)
    async with open_hosts(core.environment) as shells:
        former = await _pids(shells, release.to_revision)

        async def healthy(hosts: Sequence[Host]) -> FleetHealth:
            chosen = [shell for shell in shells if shell.host in hosts]
            return await until_healthy(
                core,
                release.to_revision,
                hosts=hosts,
                shells=chosen,
                former=former,
                workers=False,
                on_look=keep_looks(core, release),
            )

        try:
            rolled_out = await roll_out(shells, change, healthy)
        except Fenced as error:
            return await _turned_away(core, release, error)
    # An earlier attempt of this release may have changed what this one has not come to.
    touched = rolled_out.touched_hosts or await _has_touched(core, release)
    return Conclusion(
        verdict=rolled_out.verdict,
        sentence=rolled_out.sentence,
        touched_hosts=touched,
        note=PhaseNote(changed=touched, steps=rolled_out.steps),
    )


async def _turned_away(core: Core, release: Release, error: Fenced) -> Conclusion:
    """Somebody whom our ledger does not know changes these hosts: end where nothing was begun, else let a person see.

    Going back by itself is no way out: the host would refuse that as well.
    """
    touched = await _has_touched(core, release)
    if touched:
        told = "some hosts may be changed already: find out who that is, then resume or roll back"
    else:
        told = "nothing that runs has changed"
    return Conclusion(
        verdict=Verdict.INCONCLUSIVE if touched else Verdict.FAIL,
        sentence=f"{error}; {told}",
        touched_hosts=touched,
        note=PhaseNote(changed=touched),
    )


async def _has_touched(core: Core, release: Release) -> bool:
    """Whether the release has ever begun to change something that runs; preparing does not, nor what was fenced."""
    return any(
        operation.kind != "prepare" and operation.exit_status != FENCED
        for operation in await intents.operations(core.database, release)
    )


async def host_change(core: Core, release: Release, *, back: bool) -> HostChange:
    """The attempt counts how often a person asked for it: a resumed deploy is a new one, a restarted is not."""
    phase = Phase.ROLLING_BACK if back else Phase.DEPLOYING
    records = await releases.phase_records(core.database, release)
    assert release.token is not None
    return HostChange(
        release=release.id,
        token=release.token,
        revision=release.from_revision if back else release.to_revision,
        recorder=LedgerRecorder(engine=core.database, release=release),
        back=back,
        attempt=max(1, sum(record.phase is phase for record in records)),
    )


async def _pids(shells: Sequence[Shell], revision: str) -> dict[str, dict[str, int]]:
    """The processes that a switch must replace. A host that a deploy before a restart has switched has none."""
    facts = await asyncio.gather(*(inspect(shell) for shell in shells))
    return {one.host: one.pids() for one in facts if one.revision != revision}
