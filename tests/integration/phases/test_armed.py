"""The armed rollback: a watch sees when a host has lost the revision that it would go back to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from handlers.core import open_core
from handlers.phases import armed
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import Phase
from handlers.status import snapshot
from handlers.status.lines import lines
from tests.integration.host.ssh_target import serve
from tests.integration.release.steps import plan_of


async def test_a_lost_rollback_target_is_shown_with_its_host(tmp_path: Path, database_url: str) -> None:
    """One host still has the target and one has not: the status names the second one and the time."""
    async with serve(tmp_path, "web-1", "web-2") as target:
        environment = target.environment(database={"url": database_url})
        target.git("commit", "-q", "--allow-empty", "-m", "only here", at=target.tree("web-1"))
        old = target.git("rev-parse", "HEAD", at=target.tree("web-1"))
        async with open_core(environment) as core:
            plan = replace(plan_of("test"), from_revision=old)
            planned = await releases.begin(core.database, plan=plan, requested_by="ops-a")
            await lock.take(core.database, "test", planned.id, "ops-a:1")
            run = await releases.get(core.database, planned.id)
            for phase in (Phase.APPROVED, Phase.DEPLOYING):
                run = await releases.enter(core.database, run, phase)
            found = await armed.check(core, run)
            assert (found.ok, found.sentence) == (
                False,
                "present on 1 of 2 hosts; web-2 does not have it any more",
            )
            text = "\n".join(lines(await snapshot.read(core.database, "test")))
    assert "[failed]  rollback" in text
    assert f"to {old[:7]}, present on 1 of 2 hosts; web-2 does not have it" in " ".join(text.split())
