"""Old details go out of the ledger; what an auditor asks for, and what somebody still needs, stays."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.gate.values import Finding, Judgement
from handlers.release.ledger import intents, records, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.prune import prune
from tests.integration.queue.events import event
from tests.integration.release.steps import deploying

FACTS = [{"ev": "arrive", "t": float(n), "id": str(n), "seg": "PRODUCT", "key": str(n)} for n in range(500)]


async def run(engine: AsyncEngine, statement: str, **values: Any) -> list[Any]:
    """Run one statement; its rows, if it has any."""
    async with engine.begin() as tx:
        result = await tx.execute(text(statement), values)
        return list(result.all()) if result.returns_rows else []


async def ended(
    engine: AsyncEngine, *, days: int, phase: Phase = Phase.SUCCEEDED, name: str = "staging"
) -> Release:
    """A release with a look, an operation and a guard's check, that ended so many days ago."""
    release = await deploying(engine, name)
    recorder = LedgerRecorder(engine=engine, release=release)
    await recorder.intend(f"{release.id}-{name}", "web-1", "activate", "git checkout")
    await recorder.confirm(f"{release.id}-{name}", "done", 0, "Switched to a new revision")
    inputs = {"rule": "sequential", "now": 500.0, "facts": FACTS, "weighed": {"odds": 1.5}}
    seen = Judgement(finding=Finding.HEALTHY, sentence="500 of 500 completed", inputs=inputs)
    await records.record_judgement(engine, release, seen)
    path = {
        Phase.SUCCEEDED: (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED),
        Phase.ROLLED_BACK: (Phase.ROLLING_BACK, Phase.ROLLED_BACK),
        Phase.ROLLBACK_FAILED: (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED),
        Phase.WATCHING: (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING),
    }[phase]
    for to in path:
        release = await releases.enter(engine, release, to, verdict=Verdict.PASS)
    await run(
        engine,
        "UPDATE runbook.release SET finished_at = now() - make_interval(days => :days)"
        " WHERE id = :id AND finished_at IS NOT NULL",
        days=days,
        id=release.id,
    )
    await run(engine, "DELETE FROM runbook.guard_check WHERE release_id = :id", id=release.id)
    await run(engine, "DELETE FROM runbook.guard WHERE release_id = :id", id=release.id)
    return release


async def has_details(engine: AsyncEngine, release: Release) -> bool:
    """Whether the ledger still has what the gate was told, and what the command printed."""
    [look] = await records.judgements(engine, release)
    [operation] = await intents.operations(engine, release)
    assert ("facts" in look.inputs) == bool(operation.output)
    return "facts" in look.inputs


async def test_what_an_auditor_asks_for_stays(engine: AsyncEngine) -> None:
    """The release with its phases, which command ran where and how it ended, each finding with its arithmetic."""
    release = await ended(engine, days=100)
    before = await releases.phase_records(engine, release)
    pruned = await prune(engine, "staging")
    assert (pruned.releases, pruned.done) == ([release.id], True)
    assert pruned.detail_bytes > 1000
    [look] = await records.judgements(engine, release)
    assert (look.finding, look.sentence) == (Finding.HEALTHY, "500 of 500 completed")
    assert look.inputs["weighed"] == {"odds": 1.5}
    assert "facts" not in look.inputs
    [operation] = await intents.operations(engine, release)
    assert (operation.command, operation.outcome, operation.output) == ("git checkout", "done", "")
    assert await releases.phase_records(engine, release) == before
    assert (await releases.get(engine, release.id)).phase is Phase.SUCCEEDED
    assert (await prune(engine, "staging")).is_empty


@pytest.mark.parametrize(
    ("days", "phase"),
    [(89, Phase.SUCCEEDED), (100, Phase.ROLLBACK_FAILED), (100, Phase.WATCHING)],
    ids=["too young", "to be tried again", "unfinished"],
)
async def test_a_release_that_somebody_needs_keeps_its_details(
    engine: AsyncEngine, days: int, phase: Phase
) -> None:
    """Also one whose way back is still tried, for whatever age."""
    release = await ended(engine, days=days, phase=phase)
    assert (await prune(engine, "staging")).is_empty
    assert await has_details(engine, release)


async def test_a_release_whose_guard_goes_on_keeps_its_details(engine: AsyncEngine) -> None:
    """Its checks read what the gate was told. When the guard has ended they go, with the readings of the checks."""
    release = await ended(engine, days=100)
    await run(
        engine,
        "INSERT INTO runbook.guard (release_id, environment, begun_at, until) VALUES (:id, 'staging', now(), now())",
        id=release.id,
    )
    await run(
        engine,
        "INSERT INTO runbook.guard_check (release_id, number, kind, due_at, taken_at, measurements)"
        " VALUES (:id, 1, 'look', now(), now(), '[{\"key\": \"load\"}]')",
        id=release.id,
    )
    assert (await prune(engine, "staging")).is_empty
    await run(engine, "UPDATE runbook.guard SET ended_at = now()")
    assert (await prune(engine, "staging")).releases == [release.id]
    assert await run(engine, "SELECT measurements FROM runbook.guard_check") == [([],)]


async def test_another_environment_keeps_its_details(engine: AsyncEngine) -> None:
    """Two may share a ledger."""
    other = await ended(engine, days=100, name="shop")
    assert (await prune(engine, "staging")).is_empty
    assert await has_details(engine, other)


async def test_a_dry_run_changes_nothing_and_says_the_same(engine: AsyncEngine) -> None:
    """Also of messages and workers."""
    release = await ended(engine, days=100, phase=Phase.ROLLED_BACK)
    await run(
        engine,
        "INSERT INTO runbook.worker (owner, host, pid, revision, beat_at)"
        " VALUES ('old', 'web-1', 1, 'x', now() - interval '100 days'), ('new', 'web-1', 1, 'x', now())",
    )
    planned = await prune(engine, "staging", dry_run=True)
    assert await has_details(engine, release)
    assert len(await run(engine, "SELECT 1 FROM runbook.worker")) == 2
    done = await prune(engine, "staging")
    assert planned.as_json() | {"done": True} == done.as_json()
    assert (done.releases, done.workers) == ([release.id], 1)


async def test_a_release_that_is_being_changed_is_left_for_the_next_time(engine: AsyncEngine) -> None:
    """A rollback of it may have begun: nobody waits for it, and nothing of it is dropped."""
    release = await ended(engine, days=100)
    async with engine.connect() as other:
        await other.execute(text("SELECT FROM runbook.release FOR UPDATE"))
        assert (await prune(engine, "staging")).releases == []
    assert await has_details(engine, release)
    assert (await prune(engine, "staging")).releases == [release.id]


async def message(engine: AsyncEngine, *, release: Release | None, over: bool, sent: bool = True) -> None:
    """A message that was written 100 days ago."""
    await run(
        engine,
        "WITH m AS (INSERT INTO runbook.message (environment, release_id, topic, severity, sentence, written_at,"
        "   over_at, addressed_at) VALUES ('staging', :release, 'release.held', 'page', 'x',"
        "   now() - interval '100 days',"
        "   CASE WHEN :over THEN now() END, now()) RETURNING id)"
        " INSERT INTO runbook.delivery (message_id, address, due_at, ended_at)"
        " SELECT id, 'ops', now(), CASE WHEN :sent THEN now() END FROM m",
        release=None if release is None else release.id,
        over=over,
        sent=sent,
    )


async def test_messages_that_are_settled_go_with_their_deliveries(engine: AsyncEngine) -> None:
    """Not one that is still to be sent or addressed, of an unfinished release, or of a trouble that goes on."""
    release = await ended(engine, days=100)
    await message(engine, release=release, over=False, sent=True)
    await message(engine, release=None, over=True, sent=True)
    await message(engine, release=release, over=True, sent=False)
    await message(engine, release=None, over=False, sent=True)
    unfinished = await ended(engine, days=100, phase=Phase.WATCHING)
    await message(engine, release=unfinished, over=True)
    await run(
        engine,
        "INSERT INTO runbook.message (environment, release_id, topic, severity, sentence, written_at)"
        " VALUES ('staging', :id, 'release.held', 'page', 'not addressed yet',"
        " now() - interval '100 days')",
        id=release.id,
    )
    assert (await prune(engine, "staging")).messages == 2
    old = "SELECT 1 FROM runbook.message WHERE written_at < now() - interval '50 days'"
    assert len(await run(engine, old)) == 4
    left = await run(
        engine,
        "SELECT m.over_at IS NULL, d.ended_at IS NULL FROM runbook.message m"
        " JOIN runbook.delivery d ON d.message_id = m.id ORDER BY m.id",
    )
    assert left == [(False, True), (True, False), (False, False)]


async def test_the_tries_of_a_letter_that_is_still_dead_are_counted_on(engine: AsyncEngine) -> None:
    """Healing would otherwise try it three times more. Of what completed, or is gone, they are dropped."""
    dead = await event(engine, "1", status="dead_letter")
    done = await event(engine, "2", status="completed")
    await run(
        engine,
        "WITH a AS (INSERT INTO runbook.heal_action (environment, kind, round, by, events, ended_at)"
        "   VALUES ('staging', 'batch', 1, 'x', 3, now()) RETURNING id)"
        " INSERT INTO runbook.heal_event (action_id, event_id, entity_type, source_entity_id, fingerprint, former,"
        "   settled_at) SELECT a.id, e, 'PRODUCT', '1', 'x', '{}', now() - interval '100 days'"
        " FROM a, unnest(CAST(:ids AS uuid[])) AS e",
        ids=[dead, done, uuid4()],
    )
    assert (await prune(engine, "staging")).healed == 2
    assert await run(engine, "SELECT event_id FROM runbook.heal_event") == [(dead,)]


async def test_the_sync_that_the_next_one_compares_with_stays(engine: AsyncEngine) -> None:
    """What it has found in the source's lists says what was deleted there. Older runs go with their steps."""
    for kind, seen in (("full", True), ("stock", False)):
        await run(
            engine,
            "WITH r AS (INSERT INTO runbook.sync_run (environment, kind, entity_types, requested_by, owner, state,"
            "   started_at, ended_at) VALUES ('staging', :kind, '{}', 'x', gen_random_uuid(), 'done',"
            "   now() - interval '100 days', now() - interval '100 days') RETURNING id), s AS ("
            " INSERT INTO runbook.sync_step (run_id, entity_type) SELECT id, 'PRODUCT' FROM r)"
            " INSERT INTO runbook.sync_seen SELECT 'staging', :kind, 'PRODUCT', '1', id FROM r WHERE :seen",
            kind=kind,
            seen=seen,
        )
    assert (await prune(engine, "staging")).syncs == 1
    assert await run(engine, "SELECT kind FROM runbook.sync_run") == [("full",)]
    assert len(await run(engine, "SELECT 1 FROM runbook.sync_step")) == 1
