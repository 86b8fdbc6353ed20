"""The limits of a gate: exact in windows of any length, beside those of people, and gone when the gate is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from handlers.errors import Refused
from handlers.queue import in_hand, limits
from handlers.queue.claim import lock
from handlers.queue.event import EntityType, Event, Outcome, Result
from handlers.queue.throttle import Throttled, gate_of, release, throttle
from handlers.worker.worker import Worker, new_owner
from tests.integration.queue.events import change
from tests.integration.queue.events import event as put
from tests.integration.queue.test_limits import BILL, INVOICE, PRODUCT, claim, fill, forget, runbook_queue

GATE = gate_of("2026-11-29.1")
OPS = {"by": "ops-a", "reason": "wrong totals"}


async def hold(engine: AsyncEngine, quotas: dict[EntityType | None, int], **words: Any) -> Throttled:
    values: dict[str, Any] = {"by": GATE, "seconds": 60, "tick_seconds": 10, "reason": "suspicious"}
    return await throttle(engine, quotas, **values | words)


async def succeed(tx: AsyncConnection, events: Sequence[Event]) -> Mapping[UUID, Result]:
    """A handler that writes nothing."""
    return {each.id: Result(outcome=Outcome.APPLIED, target=each.key) for each in events}


def worker_of(engine: AsyncEngine, **settings: Any) -> Worker:
    return Worker(engine, owner=new_owner("test"), revision="r1", apply=succeed, **settings)


async def quotas(engine: AsyncEngine) -> dict[EntityType | None, tuple[int, str]]:
    """Every limit in force: its number and whose it is."""
    return {each.entity: (each.per_ten_seconds, each.set_by) for each in await limits.limits(engine)}


async def test_a_gate_limits_exactly_what_it_names(engine: AsyncEngine) -> None:
    """What it held and names no more is lifted in the same step; what it names gets the new number."""
    first = await hold(engine, {INVOICE: 3, BILL: 0})
    assert {entity: limit.per_ten_seconds for entity, limit in first.ours.items()} == {INVOICE: 3, BILL: 0}
    second = await hold(engine, {INVOICE: 6, None: 12})
    assert second.lifted == {BILL}
    assert await quotas(engine) == {INVOICE: (6, GATE), None: (12, GATE)}
    assert (await hold(engine, {})).lifted == {INVOICE, None}
    assert await limits.limits(engine) == []


async def test_a_limit_of_a_person_is_never_touched(engine: AsyncEngine) -> None:
    """Neither overwritten, nor shortened, nor lifted: the gate is told who holds what, and how much."""
    before = [
        await limits.limit(engine, entity, per_ten_seconds=number, seconds=600, **OPS)
        for entity, number in ((None, 50), (INVOICE, 5))
    ]
    found = await hold(engine, {INVOICE: 3, PRODUCT: 3})
    assert {entity: (each.set_by, each.per_ten_seconds) for entity, each in found.others.items()} == {
        None: ("ops-a", 50),
        INVOICE: ("ops-a", 5),
    }
    assert list(found.ours) == [PRODUCT]
    await hold(engine, {})
    assert await release(engine, by=GATE) == frozenset()
    assert await limits.limits(engine) == before


async def test_a_person_wins_where_the_gate_was_first(engine: AsyncEngine) -> None:
    """Their limit replaces the gate's, counts over ten seconds, and when it ends the gate sets its own again."""
    await hold(engine, {INVOICE: 3}, tick_seconds=0.1)
    await limits.limit(engine, INVOICE, per_ten_seconds=50, seconds=0.3, **OPS)
    (theirs,) = await limits.limits(engine)
    assert (theirs.set_by, theirs.window_seconds) == ("ops-a", 10)
    assert INVOICE in (await hold(engine, {INVOICE: 3})).others
    until = time.monotonic() + 20
    while INVOICE not in (await hold(engine, {INVOICE: 3})).ours:
        assert time.monotonic() < until
    assert await quotas(engine) == {INVOICE: (3, GATE)}


async def test_a_person_who_lifts_the_limit_of_a_gate_is_obeyed_until_its_next_look(
    engine: AsyncEngine,
) -> None:
    """The queue is free at once; the gate, which goes on suspecting, sets its limit again."""
    await fill(engine, 3, INVOICE)
    await hold(engine, {INVOICE: 0})
    assert await claim(engine, 1) == []
    assert [each.is_of_a_gate for each in await limits.lift_all(engine)] == [True]
    assert len(await claim(engine, 1)) == 1
    await hold(engine, {INVOICE: 0})
    assert await claim(engine, 1) == []


async def test_a_person_is_told_whose_limit_it_is(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    """`queue show` names the gate, its quota and the end; `unlimit` lifts it and says that it comes again."""
    await hold(engine, {INVOICE: 3})
    code, out = await runbook_queue(tmp_path, database_url, "show")
    # Lines are wrapped at eighty columns.
    out = " ".join(out.split())
    assert (code, f"limited to 3 events of {INVOICE} in 10 s until" in out, f"by {GATE}:" in out) == (
        0,
        True,
        True,
    )
    code, out = await runbook_queue(tmp_path, database_url, "unlimit")
    assert (code, "a gate sets its limit again at its next look" in out) == (0, True)
    assert await limits.limits(engine) == []
    code, out = await runbook_queue(tmp_path, database_url, "unlimit")
    assert "a gate sets" not in out
    words = ("limit", "--per-ten-seconds", "0", "--reason", "x", "--by", GATE)
    assert (await runbook_queue(tmp_path, database_url, *words))[0] == 5


async def test_a_dead_controller_frees_the_queue(engine: AsyncEngine) -> None:
    """A limit that nobody renews ends after its seconds, by the database's clock."""
    await fill(engine, 3)
    await hold(engine, {None: 0}, seconds=0.2)
    assert await claim(engine) == []
    until = time.monotonic() + 20
    while not await claim(engine):
        assert time.monotonic() < until
    assert await limits.limits(engine) == []


async def test_a_release_that_ends_lifts_its_own_limits_only(engine: AsyncEngine) -> None:
    """Idle workers are woken, and the limits of a person and of another gate stay."""
    await fill(engine, 5)
    await hold(engine, {PRODUCT: 0})
    await hold(engine, {BILL: 0}, by=gate_of("2026-11-28.4"))
    await limits.limit(engine, INVOICE, per_ten_seconds=5, seconds=60, **OPS)
    worker = worker_of(engine, poll_seconds=600)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await _until_listening(engine)
        assert not worker.tally
        assert await release(engine, by=GATE) == {PRODUCT}
        began = time.monotonic()
        while not worker.tally:
            assert time.monotonic() < began + 20
            await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running
    assert set(await quotas(engine)) == {BILL, INVOICE}


async def _until_listening(engine: AsyncEngine) -> None:
    """Until the worker has found nothing to do and waits for a notification."""
    until = time.monotonic() + 20
    listening = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    while True:
        async with engine.connect() as tx:
            if (await tx.execute(listening)).scalar_one():
                return
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_a_larger_quota_takes_effect_at_once(engine: AsyncEngine) -> None:
    """Workers that wait because nothing was allowed are woken by the look that allows something."""
    await fill(engine, 5)
    await hold(engine, {None: 0})
    worker = worker_of(engine, poll_seconds=600, batch_size=1)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await _until_listening(engine)
        await hold(engine, {None: 2})
        began = time.monotonic()
        while worker.tally.total() < 2:
            assert time.monotonic() < began + 8, "a window of ten seconds has not passed"
            await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running
    assert worker.tally.total() == 2


async def test_a_changed_quota_counts_what_was_taken_before(engine: AsyncEngine) -> None:
    """More adds only the difference, less stops at once; no window holds more than the number now in force."""
    await fill(engine, 60)
    taken = []
    for quota in (3, 6, 4, 12, 3):
        await hold(engine, {PRODUCT: quota})
        taken.append(len(await claim(engine)))
    assert taken == [3, 3, 0, 6, 0]
    await forget(engine, 10.5)
    assert len(await claim(engine)) == 3


async def test_four_workers_never_take_more_than_the_quota_in_any_window(engine: AsyncEngine) -> None:
    """Windows of half a second, twenty changes of the quotas, claims without a pause: by `started_at` it is exact."""
    await fill(engine, 400)
    await fill(engine, 400, INVOICE)
    window, ended = 0.5, False
    # Before the first claim: one that began without a limit takes its whole batch.
    await hold(engine, {PRODUCT: 2, None: 9}, tick_seconds=window)

    async def work(owner: str) -> None:
        while not ended:
            await claim(engine, 5, owner=owner)

    working = [asyncio.create_task(work(f"w{n}")) for n in range(4)]
    try:
        for look in range(20):
            await hold(engine, {PRODUCT: 2 + look % 3, None: 9}, tick_seconds=window)
            await asyncio.sleep(0.15)
    finally:
        ended = True
        await asyncio.gather(*working)
    query = "SELECT started_at, entity_type::text FROM tds_sync_queue WHERE status = 'processing' ORDER BY started_at"
    async with engine.connect() as tx:
        rows = [(row.started_at, row.entity_type) for row in await tx.execute(text(query))]
    assert len(rows) > 30, "the windows slide, and every one lets something through"
    assert 2 <= _most(rows, window, "product") <= 4
    assert 4 < _most(rows, window, "") <= 9


def _most(rows: list[tuple[datetime, str]], window: float, only: str) -> int:
    """The largest number in any window that includes its begin and not its end."""
    times = [at for at, name in rows if only in name]
    return max(
        sum(first <= at < first + timedelta(seconds=window) for at in times[n:])
        for n, first in enumerate(times)
    )


async def test_claims_and_looks_at_once_never_deadlock(engine: AsyncEngine) -> None:
    """Ended limits are no reason: a claim locks and counts only what is in force, always in one order."""
    for entity in (PRODUCT, INVOICE, BILL):
        await fill(engine, 60, entity)
    await hold(engine, {BILL: 1, PRODUCT: 1})
    ended = False

    async def work(owner: str) -> None:
        while not ended:
            await claim(engine, 2, owner=owner)

    working = [asyncio.create_task(work(f"w{n}")) for n in range(3)]
    try:
        for look in range(60):
            await hold(engine, [{INVOICE: 5}, {None: 9, BILL: 2}, {PRODUCT: 2}][look % 3], tick_seconds=0.1)
    finally:
        ended = True
        await asyncio.gather(*working)


async def test_a_limited_type_does_not_take_the_short_way_from_others(engine: AsyncEngine) -> None:
    """Products are still claimed by row locks while invoices are limited, and invoices get what they may."""
    await fill(engine, 30)
    await fill(engine, 30, INVOICE)
    await hold(engine, {INVOICE: 3})
    worker = worker_of(engine, batch_size=4)
    leases: list[str] = []

    def count(*words: Any) -> None:
        if "SET status = 'processing'" in words[2]:
            leases.append(words[2])

    await worker.step()  # It finds the limit.
    sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", count)
    for _ in range(6):
        await worker.step()
    assert len(leases) <= 3, "the limited type is asked for once in a second"
    query = "SELECT entity_type::text AS name FROM tds_sync_queue WHERE status <> 'pending'"
    async with engine.connect() as tx:
        taken = Counter((await tx.execute(text(query))).scalars())
    assert taken["product"] >= 20
    assert taken["invoice"] == 3


async def test_a_busy_worker_finds_the_room_of_a_limited_type(engine: AsyncEngine) -> None:
    """With products always due it still takes invoices when their quota grows, and all when the limit ends."""
    await fill(engine, 30, INVOICE)
    await fill(engine, 2000)
    await hold(engine, {INVOICE: 0})
    worker = worker_of(engine, batch_size=2)
    await worker.step()
    await worker.step()
    query = text("SELECT count(*) FROM tds_sync_queue WHERE entity_type = 'invoice' AND status <> 'pending'")

    async def until(number: int) -> None:
        end = time.monotonic() + 60
        while True:
            assert await worker.step(), "products are due all the time"
            async with engine.connect() as tx:
                if (await tx.execute(query)).scalar_one() >= number:
                    return
            assert time.monotonic() < end

    await hold(engine, {INVOICE: 3})
    await until(3)
    await release(engine, by=GATE)
    await until(10)


async def test_a_limit_that_comes_between_reading_and_claiming_is_obeyed(engine: AsyncEngine) -> None:
    """The claim of the free types keeps the limits that it has read, and takes nothing of a type limited since."""
    await fill(engine, 5)
    await fill(engine, 5, BILL)
    batch = in_hand.new_batch()
    await hold(engine, {INVOICE: 3})
    async with engine.begin() as tx:
        free = [PRODUCT, BILL]
        assert len(await lock(tx, batch=batch, limit=2, entities=free)) == 2
        await hold(engine, {INVOICE: 3, BILL: 0})
        assert await lock(tx, batch=batch, limit=2, entities=free) == []
        assert len(await lock(tx, batch=batch, limit=2, entities=[PRODUCT])) == 2


async def test_a_ledger_without_windows_still_works(engine: AsyncEngine) -> None:
    """A new worker and `queue throttle` on an old ledger count over ten seconds; a gate is told what is missing."""
    await fill(engine, 5)
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE runbook.intake DROP COLUMN window_seconds"))
    await limits.limit(engine, None, per_ten_seconds=2, seconds=60, **OPS)
    assert [each.window_seconds for each in await limits.limits(engine)] == [10]
    assert len(await claim(engine)) == 2
    await forget(engine, 9)
    assert await claim(engine) == []
    await forget(engine, 1.5)
    assert len(await claim(engine)) == 2
    with pytest.raises(Refused, match="runbook db upgrade"):
        await hold(engine, {PRODUCT: 3})
    assert await release(engine, by=GATE) == frozenset()


async def test_a_worker_of_an_older_version_obeys_a_gate(engine: AsyncEngine) -> None:
    """Its statements know no window: it counts what all workers took over ten seconds, which is never more."""
    await fill(engine, 20)
    await hold(engine, {None: 3}, tick_seconds=10)
    assert len(await claim(engine, 2)) == 2
    async with engine.begin() as tx:
        room = await tx.execute(
            text(
                "SELECT greatest(0, i.per_ten_seconds - coalesce((SELECT sum(t.number)"
                " FROM unnest(i.taken_at, i.taken) AS t (at, number)"
                " WHERE t.at > statement_timestamp() - interval '10 seconds'), 0)) FROM runbook.intake i"
                " WHERE i.until > now()"
            )
        )
        assert room.scalar_one() == 1
        await tx.execute(
            text(
                "UPDATE runbook.intake i SET taken_at = taken_at || statement_timestamp(), taken = taken || 1"
                " WHERE i.entity_type = '*'"
            )
        )
    assert await claim(engine) == []


async def test_a_ledger_without_limits_has_nothing_to_lift(engine: AsyncEngine) -> None:
    """The end of a release does not fail because there is no table of limits."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE runbook.intake RENAME TO hidden"))
    assert await release(engine, by=GATE) == frozenset()


async def test_a_limit_of_an_unknown_type_holds_nothing(engine: AsyncEngine) -> None:
    """A row written by hand with a wrong name is not a limit on all types, neither in the claim nor on the page."""
    await fill(engine, 3)
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.intake (entity_type, per_ten_seconds, until, set_by, reason)"
                " VALUES ('Invoices', 0, now() + interval '1 hour', 'x', 'y')"
            )
        )
    assert len(await claim(engine)) == 3
    assert await limits.limits(engine) == []
    assert (await hold(engine, {PRODUCT: 1})).others == {}


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        (-1, {}),
        (1, {"seconds": 0}),
        (1, {"seconds": -1}),
        (1, {"seconds": float("nan")}),
        (1, {"seconds": 90_000}),
        (1, {"tick_seconds": 0}),
        (1, {"tick_seconds": 10.1}),
        (1, {"tick_seconds": float("nan")}),
        (1, {"by": "ops-a"}),
        (1, {"by": "gate of\x00 x"}),
        (1, {"by": ""}),
    ],
)
async def test_a_limit_that_is_none_is_refused(
    engine: AsyncEngine, quota: int, words: dict[str, Any]
) -> None:
    """A negative quota, no time, a longer window than old workers count, the name of a person: nothing is set."""
    with pytest.raises(Refused):
        await hold(engine, {PRODUCT: quota}, **words)
    assert await limits.limits(engine) == []


async def test_a_person_does_not_use_the_name_of_a_gate(engine: AsyncEngine) -> None:
    """A limit in that name would be overwritten and lifted by the gate."""
    with pytest.raises(Refused, match="use your own"):
        await limits.limit(engine, None, per_ten_seconds=0, seconds=60, by=GATE, reason="mine")


@pytest.mark.parametrize("seconds", [0, -1, 10.5, float("nan"), float("inf")])
async def test_the_database_refuses_a_window_that_old_workers_do_not_count(
    engine: AsyncEngine, seconds: float
) -> None:
    """A row written by hand counts over ten seconds or less too."""
    await hold(engine, {PRODUCT: 1})
    with pytest.raises(IntegrityError, match="counts_over_ten_seconds_or_less"):
        async with engine.begin() as tx:
            await tx.execute(text("UPDATE runbook.intake SET window_seconds = :s"), {"s": seconds})


async def test_what_is_tried_again_is_not_limited_by_a_gate(engine: AsyncEngine) -> None:
    """It has admitted these events already: held back, each of them would look as if it were stuck."""
    again = {"status": "retry", "next_retry_at": "sql:now()", "attempt_count": 1}
    ids = [await put(engine, f"{number}", **again) for number in range(9)]
    fresh = [await put(engine, f"fresh {number}") for number in range(9)]
    await hold(engine, {None: 0})
    assert {each.id for each in await claim(engine)} == set(ids)
    await hold(engine, {None: 2})
    taken = {each.id for each in await claim(engine)}
    assert len(taken) == 2
    assert taken <= set(fresh)
    for id_ in ids:
        await change(engine, id_, **again, locked_by=None)
    await limits.limit(engine, PRODUCT, per_ten_seconds=0, seconds=60, **OPS)
    assert await claim(engine) == [], "a person limits all of it"
