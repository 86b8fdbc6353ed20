"""The flow that schedules start: what its run says on the Prefect page."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.sync import sync
from handlers.environment.load import load_environment
from handlers.zoho.runs import Kind
from rehearsal.zoho.server import DAY_IS_OVER, NO_SCOPE, problem
from tests.integration.zoho.sources import P, fill, place


async def test_a_flow_run_reads_and_says_what_it_did(tmp_path: Path, database_url: str) -> None:
    """By the environment's name, as a schedule knows it."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 3)
        load_environment(str(here.path))
        ended = await sync.fn("synced", Kind.FULL, [P])
        assert (ended.name, ended.is_completed()) == ("Done", True)
        assert "3 changes queued" in str(ended.message)
        await here.work()
        assert (await here.column(P, "name")).keys() == set(keys)


async def test_a_flow_run_that_waits_is_no_failure(tmp_path: Path, database_url: str) -> None:
    """The next schedule goes on; until then it says that it was not started."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 1)
        load_environment(str(here.path))
        here.source.fail("/items", DAY_IS_OVER)
        ended = await sync.fn("synced", Kind.FULL, [P])
        assert (ended.name, ended.is_completed()) == ("Waiting", True)
        ended = await sync.fn("synced", Kind.FULL, [P])
        assert (ended.name, ended.is_completed()) == ("NotStarted", True)
        assert "the sync goes on where it is" in str(ended.message)


async def test_a_flow_run_that_somebody_must_look_at_has_failed(tmp_path: Path, database_url: str) -> None:
    """A missing scope does not pass by itself."""
    async with place(tmp_path, database_url) as here:
        load_environment(str(here.path))
        here.source.fail("/items", NO_SCOPE)
        ended = await sync.fn("synced", Kind.FULL, [P])
        assert ended.is_failed()
        assert "code 57" in str(ended.message)


async def test_a_fault_that_passes_is_tried_again_by_its_step(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step goes on where the ledger says, and what was read before is not read again."""
    monkeypatch.setattr("handlers.zoho.api.TRIES", 1)
    async with place(tmp_path, database_url) as here:
        fill(here.source, 60)
        load_environment(str(here.path))
        here.source.fail("/items/", problem(500, 1000, "x"), times=1, after=55)
        ended = await sync.fn("synced", Kind.FULL, [P])
        assert ended.name == "Done"
        assert len(await here.events()) == 60
        assert here.source.asked("/items/") <= 60 + 10


def test_the_page_offers_the_kinds() -> None:
    """Parameters are checked before a run begins."""
    assert sync.validate_parameters({"environment": "x", "kind": "stock"})["kind"] is Kind.STOCK
    assert set(sync.parameters.definitions["Kind"]["enum"]) == {"full", "incremental", "stock"}
