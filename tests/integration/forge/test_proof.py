"""What staging has proven decides over the merge, because a merge is not taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from flows import pull_request
from handlers.environment.load import load_environment
from handlers.errors import Refused, TryAgain
from handlers.release.override import requested
from handlers.release.phase import Phase
from handlers.release.pulled import MergedPull
from rehearsal.postgres import Postgres
from tests.integration.forge.hubs import Hub
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.release.pair import PROMOTION, Pair
from tests.integration.release.steps import in_phase


@pytest_asyncio.fixture(loop_scope="session")
async def pair(
    tmp_path: Path, database_url: str, postgres: Postgres, adopted_template: str
) -> AsyncIterator[Pair]:
    """Production, which needs the proof of staging, and merges on a forge."""
    async with Pair.make(tmp_path, database_url, postgres, adopted_template) as pair:
        yield pair


@pytest.fixture
def hub(pair: Pair) -> Iterator[Hub]:
    """The forge of production, whose file needs staging's proof."""
    with Hub.make(pair.folder) as made:
        with made.file.open("a", encoding="utf-8") as file:
            file.write(PROMOTION)
        yield made


async def bring(hub: Hub, commit: str, by: str = "") -> MergedPull | None:
    """As the command does it, with the file as it is now."""
    return await pull_request.bring(
        load_environment(str(hub.file)), commit, clone=hub.clone.folder, reason="", tell=hub.told.append,
        override=requested(by, "the books", account=by, freeze=False, promotion=bool(by)),
    )  # fmt: skip


async def prove(pair: Pair, commit: str, phase: Phase = Phase.SUCCEEDED) -> None:
    """Staging has released this commit, to this end."""
    run = await in_phase(pair.staging, phase, "staging")
    async with pair.staging.begin() as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        await tx.execute(
            text("UPDATE runbook.release SET to_revision = :commit WHERE id = :id"),
            {"commit": commit, "id": run.id},
        )


async def test_what_staging_has_not_proven_is_not_merged(hub: Hub, pair: Pair) -> None:
    """It is pushed and reviewed, and waits at its pull request. Whoever may override it merges it."""
    commit = hub.work()
    hub.make_good(commit)
    with pytest.raises(
        Refused, match=r"the pull request is not merged: no release of .* has succeeded in staging"
    ):
        await bring(hub, commit)
    assert (hub.bare.tip("main"), len(hub.forge.pulls)) == (hub.first, 1)
    with pytest.raises(Refused, match=r"the pull request is not merged: .*ops-x"):
        await bring(hub, commit, "ops-x")
    assert hub.bare.tip("main") == hub.first
    assert await bring(hub, commit, "ops-a") is not None


async def test_what_staging_took_back_while_people_reviewed_is_not_merged(hub: Hub, pair: Pair) -> None:
    """The proof is asked for in the moment of the merge."""
    commit = hub.work()
    hub.make_good(commit)
    await prove(pair, commit, Phase.ROLLED_BACK)
    with pytest.raises(Refused, match="is rolled_back"):
        await bring(hub, commit)
    assert hub.bare.tip("main") == hub.first


async def test_a_staging_that_cannot_be_asked_is_no_refusal(hub: Hub, pair: Pair) -> None:
    """1: the same command may work in a moment. Nothing was merged meanwhile."""
    commit = hub.work()
    hub.make_good(commit)
    pair.write("staging", f"postgresql://x@127.0.0.1:{CLOSED_PORT}/x")
    with pytest.raises(TryAgain):
        await bring(hub, commit)
    assert hub.bare.tip("main") == hub.first


async def test_a_proven_commit_is_merged_and_the_proof_is_in_the_description(hub: Hub, pair: Pair) -> None:
    """A reviewer sees what staging has shown."""
    commit = hub.work()
    hub.make_good(commit)
    await prove(pair, commit)
    assert await bring(hub, commit) is not None
    assert f"of staging proved {commit[:7]} at " in hub.forge.pulls[0].body
