"""Recording a release: the quarantine is checked again, because it may be newer than the plan."""

from __future__ import annotations

import pytest

from handlers.core import open_core
from handlers.environment.load import parse
from handlers.errors import Refused
from handlers.phases.begin import record_release
from handlers.release.ledger import records, releases
from tests.integration.release.steps import deploying, plan_of


async def test_a_quarantine_that_the_plan_did_not_know_refuses(database_url: str) -> None:
    """A plan cannot read a ledger whose migration is pending: the release checks it after the migration."""
    environment = parse(
        {
            "name": "staging",
            "database": {"url": database_url},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {"web": ["tsh-erp"]},
        },
        source="test",
    )
    async with open_core(environment) as core:
        rolled_back = await deploying(core.database)
        await records.quarantine(core.database, rolled_back, "7 of 7 failed")
        with pytest.raises(Refused, match=r"is in quarantine: release .* \(7 of 7 failed\).*runbook lift"):
            await record_release(
                core, plan_of(to_revision=rolled_back.to_revision), requested_by="ops", reason="again"
            )
        assert len(await releases.history(core.database, "staging")) == 1
