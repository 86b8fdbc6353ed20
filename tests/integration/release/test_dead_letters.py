"""Events, batches, operations, judgements, quarantine and files in the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import LockLost, Refused
from handlers.gate import rules
from handlers.gate.values import Count, Finding, Measurement, Thresholds
from handlers.release import lock
from handlers.release.ledger import dead_letters, intents, records, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.note import NextLook, PhaseNote
from handlers.release.phase import Phase, Release
from tests.integration.release.steps import begun, deploying, locked


@dataclass(frozen=True, kw_only=True)
class Before:
    """What an event was, as the queue would tell it."""

    id: str
    attempt_count: int = 3
    error_message: str | None = "greenlet_spawn has not been called"


@dataclass(frozen=True, kw_only=True)
class Now:
    """The state of an event in the queue."""

    id: UUID
    status: str
    error_message: str | None = None


async def planned(engine: AsyncEngine, size: int = 4) -> tuple[Release, list[UUID]]:
    """A release that may touch *size* products."""
    release, ids = await deploying(engine), [uuid4() for _ in range(size)]
    await dead_letters.plan_events(
        engine, release, [(n, event, "Product", f"46{n}") for n, event in enumerate(ids)]
    )
    return release, ids


async def drained(engine: AsyncEngine, release: Release, number: int, ids: list[UUID]) -> None:
    """A batch with these events in it."""
    async with engine.begin() as tx:
        await dead_letters.record_batch(tx, release, number, [Before(id=str(event)) for event in ids])


async def test_planning_twice_keeps_the_first_order(engine: AsyncEngine) -> None:
    """A retry of the planning neither doubles nor reorders the events."""
    release, ids = await planned(engine)
    await dead_letters.plan_events(engine, release, [(9, ids[0], "Product", "x")])
    assert [event.event_id for event in await dead_letters.undrained(engine, release)] == ids
    assert len(await dead_letters.undrained(engine, release, limit=2)) == 2


async def test_a_batch_remembers_what_its_events_were(engine: AsyncEngine) -> None:
    """Former values come back as they were given, and the events no longer count as undrained."""
    release, ids = await planned(engine)
    await drained(engine, release, 1, ids[:2])
    assert [event.event_id for event in await dead_letters.undrained(engine, release)] == ids[2:]
    [first, second] = await dead_letters.unsettled(engine, release)
    assert Before(**first.former) == Before(id=str(ids[0]))
    assert second.batch == 1


async def test_an_event_outside_the_plan_is_never_drained(engine: AsyncEngine) -> None:
    """The transaction that would redrive it is refused as a whole."""
    release, ids = await planned(engine)
    with pytest.raises(Refused, match="only 1 of them are planned"):
        await drained(engine, release, 1, [ids[0], uuid4()])
    assert len(await dead_letters.undrained(engine, release)) == 4
    assert await dead_letters.batches(engine, release) == []


async def test_an_event_is_drained_once(engine: AsyncEngine) -> None:
    """A second batch with the same event is refused, as is a second batch with the same number."""
    release, ids = await planned(engine)
    await drained(engine, release, 1, ids[:1])
    with pytest.raises(Refused, match="not yet redriven"):
        await drained(engine, release, 2, ids[:1])
    with pytest.raises(IntegrityError):
        await drained(engine, release, 1, ids[1:2])


async def test_a_controller_without_the_lock_drains_nothing(engine: AsyncEngine) -> None:
    """The fence is inside the transaction of the redrive."""
    release, ids = await planned(engine)
    await lock.take_over(engine, "staging", release.id, "ops-b:1", reason="test")
    with pytest.raises(LockLost):
        await drained(engine, release, 1, ids[:1])
    assert len(await dead_letters.undrained(engine, release)) == 4


async def test_a_settled_batch_adds_up(engine: AsyncEngine) -> None:
    """Completed, failed and open are counted; what is still open stays unsettled."""
    release, ids = await planned(engine)
    await drained(engine, release, 1, ids)
    states = [
        Now(id=ids[0], status="completed"),
        Now(id=ids[1], status="dead_letter", error_message="bad\x00 rate"),
        Now(id=ids[2], status="retry"),
        Now(id=ids[3], status="pending"),
    ]
    batch = await dead_letters.settle_batch(
        engine, release, 1, states=states, finding=Finding.UNHEALTHY, sentence="1 of 4"
    )
    assert (batch.completed, batch.failed, batch.open, batch.finding) == (1, 1, 2, Finding.UNHEALTHY)
    assert await dead_letters.batches(engine, release) == [batch]
    assert [event.event_id for event in await dead_letters.unsettled(engine, release)] == ids[2:]
    assert [event.error for event in await dead_letters.events(engine, release)] == [
        None,
        "bad rate",
        None,
        None,
    ]


async def test_what_went_back_counts_as_not_drained(engine: AsyncEngine) -> None:
    """Only unsettled events can be returned; they stay in the plan as before."""
    release, ids = await planned(engine)
    await drained(engine, release, 1, ids)
    await dead_letters.settle_batch(
        engine,
        release,
        1,
        states=[Now(id=ids[0], status="completed")],
        finding=Finding.UNHEALTHY,
        sentence="",
    )
    async with engine.begin() as tx:
        assert await dead_letters.mark_returned(tx, release, ids) == 3
    assert [event.event_id for event in await dead_letters.undrained(engine, release)] == ids[1:]
    assert await dead_letters.unsettled(engine, release) == []


async def test_an_intention_is_open_until_its_outcome_is_certain(engine: AsyncEngine) -> None:
    """Intent, unknown, done: open twice, then closed, and done is never overwritten."""
    release = await deploying(engine)
    recorder = LedgerRecorder(engine=engine, release=release)
    await recorder.intend("r-switch-web-1", "web-1", "switch", "git checkout")
    await recorder.intend("r-switch-web-1", "web-1", "switch", "git checkout")
    assert [operation.id for operation in await intents.open_operations(engine, release)] == [
        "r-switch-web-1"
    ]
    await recorder.confirm("r-switch-web-1", "unknown", None, "")
    assert len(await intents.open_operations(engine, release)) == 1
    await recorder.confirm("r-switch-web-1", "done", 0, "a\x00" + "x" * 50_000)
    await recorder.confirm("r-switch-web-1", "failed", 1, "late")
    assert await intents.open_operations(engine, release) == []
    [operation] = await intents.operations(engine, release)
    assert (operation.outcome, operation.exit_status, operation.phase) == ("done", 0, Phase.DEPLOYING)
    assert operation.token == release.token
    assert len(operation.output) < 21_000
    assert "left out" in operation.output


async def test_an_operation_id_means_one_thing(engine: AsyncEngine) -> None:
    """The same id for another host is refused, and so is the outcome of something never intended."""
    recorder = LedgerRecorder(engine=engine, release=await deploying(engine))
    await recorder.intend("r-1", "web-1", "switch", "git checkout")
    with pytest.raises(Refused, match="switch on web-1 already"):
        await recorder.intend("r-1", "web-2", "switch", "git checkout")
    with pytest.raises(Refused, match="has no recorded intention"):
        await recorder.confirm("r-2", "done", 0, "")


async def test_no_host_operation_is_intended_without_the_lock(engine: AsyncEngine) -> None:
    """Neither before the lock was taken nor after it was lost."""
    early = LedgerRecorder(engine=engine, release=await begun(engine))
    with pytest.raises(Refused, match="not locked"):
        await early.intend("r-1", "web-1", "switch", "")
    release = await deploying(engine)
    await lock.take_over(engine, "staging", release.id, "ops-b:1", reason="test")
    with pytest.raises(LockLost):
        await LedgerRecorder(engine=engine, release=release).intend("r-1", "web-1", "switch", "")


async def test_a_stored_judgement_can_be_judged_again(engine: AsyncEngine) -> None:
    """What comes back from the database leads to the same finding and sentence."""
    release = await deploying(engine)
    seen = Measurement(counts=(Count(entity="Invoice", completed=1, failed=7, errors=("x\x01y",)),))
    judgement = rules.judge_watch(seen, Thresholds())
    stored = await records.record_judgement(engine, release, judgement)
    [record] = await records.judgements(engine, release)
    assert record == stored
    assert record.phase is Phase.DEPLOYING
    assert rules.judge(**record.inputs) == judgement


async def test_a_revision_is_quarantined_until_a_named_person_lifts_it(engine: AsyncEngine) -> None:
    """A second quarantine changes nothing; lifting needs a name and a quarantined revision."""
    release = await deploying(engine)
    await asyncio.gather(*(records.quarantine(engine, release, "7 of 7 failed") for _ in range(3)))
    quarantine = await records.find_quarantine(engine, "staging", release.to_revision)
    assert quarantine is not None
    assert (quarantine.reason, quarantine.release_id) == ("7 of 7 failed", release.id)
    assert await records.find_quarantine(engine, "production", release.to_revision) is None
    with pytest.raises(Refused, match="name of a person"):
        await records.lift(engine, "staging", release.to_revision, lifted_by="")
    with pytest.raises(Refused, match="7 digits or more"):
        await records.lift(engine, "staging", release.to_revision[:6], lifted_by="ops-b")
    lifted = await records.lift(engine, "staging", release.to_revision[:7].upper(), lifted_by="ops-b")
    assert lifted == release.to_revision
    assert await records.find_quarantine(engine, "staging", release.to_revision) is None
    with pytest.raises(Refused, match="matches no quarantined revision of staging"):
        await records.lift(engine, "staging", release.to_revision, lifted_by="ops-b")


async def test_a_file_that_is_written_again_has_its_new_proof(engine: AsyncEngine) -> None:
    """One row for each path, with the newest hash."""
    release = await begun(engine)
    for sha256 in ("aa", "bb"):
        await records.record_file(engine, release, kind="report", path="r.json", sha256=sha256)
    assert [(file.path, file.sha256) for file in await records.files(engine, release)] == [("r.json", "bb")]


async def test_a_note_joins_what_the_phase_concludes(engine: AsyncEngine) -> None:
    """What was noted while the phase ran is kept; what is unset replaces nothing, and what is set again its former."""
    release = await locked(engine, await begun(engine))
    at = datetime(2025, 11, 14, 14, 2, tzinfo=UTC)
    await releases.note(engine, release, PhaseNote(looked="a", next=NextLook(what="next look", at=at)))
    await releases.note(engine, release, PhaseNote(looked="b", hosts={}))
    assert (await releases.phase_records(engine, release))[0].note == PhaseNote(
        looked="b", next=NextLook(what="next look", at=at), hosts={}
    )
