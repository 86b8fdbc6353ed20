"""The drain on a real queue: hopeless letters are set aside, parents go first, and new errors roll back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.gate import rules
from handlers.phases import drain
from handlers.queue import limits
from handlers.queue.event import EntityType
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.ledger.dead_letters import ReleaseEvent
from handlers.release.phase import Conclusion, Phase, Release, Verdict
from handlers.report import gather
from handlers.status import snapshot
from handlers.status.lines import lines
from tests.integration.queue.events import change, dead_letter
from tests.integration.release.steps import in_phase

GREENLET = "greenlet_spawn has not been called; can't call await_only() here"
BAD_RATE = 'rate: must be a number, not "{}"'
PRODUCT, INVOICE, CUSTOMER, BILL = (
    EntityType.PRODUCT,
    EntityType.INVOICE,
    EntityType.CUSTOMER,
    EntityType.BILL,
)


@dataclass(frozen=True, kw_only=True)
class Drained:
    """A drain that has come to its end."""

    conclusion: Conclusion
    batches: tuple[int, ...]
    events: tuple[ReleaseEvent, ...]

    def ends(self) -> dict[str, list[str]]:
        """The source keys of the letters by how they ended; `left` was never redriven."""
        found: dict[str, list[str]] = {}
        for event in self.events:
            how = "left" if event.batch is None else (event.status or "open")
            found.setdefault(how, []).append(event.source_entity_id)
        return found


@dataclass(frozen=True, kw_only=True)
class Place:
    """A release that drains, with workers in this process."""

    core: Core
    run: Release

    @property
    def engine(self) -> AsyncEngine:
        return self.core.database

    async def letter(
        self, key: str, entity: EntityType = PRODUCT, payload: dict[str, Any] | None = None, **columns: Any
    ) -> UUID:
        """A dead letter that had died of the greenlet error, unless *columns* say otherwise."""
        columns = {"error_message": GREENLET} | columns
        if payload is not None:
            columns["validated_payload"] = f"sql:'{json.dumps(payload)}'::jsonb"
        return await dead_letter(self.engine, key, entity=entity, **columns)

    async def plan(self, letters: Sequence[tuple[UUID, EntityType, str]]) -> None:
        """Record them as the planned letters, in this order."""
        rows = [(n, id_, entity.value, key) for n, (id_, entity, key) in enumerate(letters)]
        await dead_letters.plan_events(self.engine, self.run, rows)

    async def run_first(self, id_: UUID, **columns: Any) -> Conclusion:
        """Send the first batch, let *columns* become of its letter *id_*, and judge it."""
        assert await drain.next_batch(self.core, self.run) == 1
        await change(self.engine, id_, **columns)
        return await drain.settle(self.core, self.run, 1)

    async def drain(self) -> Drained:
        """What the flow does."""
        while (number := await drain.next_batch(self.core, self.run)) is not None:
            conclusion = await drain.settle(self.core, self.run, number)
            if conclusion.verdict is Verdict.FAIL:
                break
        else:
            conclusion = await drain.conclude(self.core, self.run)
        return Drained(
            conclusion=conclusion,
            batches=tuple(batch.size for batch in await dead_letters.batches(self.engine, self.run)),
            events=tuple(await dead_letters.events(self.engine, self.run)),
        )


def environment(database_url: str, execution: str = "inline") -> Environment:
    return parse(
        {
            "name": "staging",
            "execution": execution,
            "database": {"url": database_url},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {},
            "drain": {"settle_seconds": 2, "poll_seconds": 0.05},
        },
        source="test",
    )


@pytest_asyncio.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    async with open_core(environment(database_url)) as core:
        yield Place(core=core, run=await in_phase(core.database, Phase.DRAINING))


@pytest_asyncio.fixture
async def stalled(database_url: str) -> AsyncIterator[Place]:
    """The same, with workers that take nothing."""
    async with open_core(environment(database_url, "workers")) as core:
        yield Place(core=core, run=await in_phase(core.database, Phase.DRAINING))


def item(key: str, rate: object = "5.00") -> dict[str, Any]:
    return {"item_id": key, "name": f"item {key}", "rate": rate}


def invoice(key: str, customer: str) -> dict[str, Any]:
    return {"invoice_id": key, "invoice_number": f"INV-{key}", "customer_id": customer, "line_items": []}


def customer(key: str, **more: Any) -> dict[str, Any]:
    return {"contact_id": key, "contact_name": f"c {key}", "contact_type": "customer"} | more


async def products(place: Place, number: int, first: int = 1000) -> list[tuple[UUID, EntityType, str]]:
    keys = [str(first + n) for n in range(number)]
    return [(await place.letter(key, payload=item(key)), PRODUCT, key) for key in keys]


async def hopeless(place: Place, number: int, former: str) -> list[tuple[UUID, EntityType, str]]:
    """Products whose rate no revision can read."""
    found = []
    for n in range(number):
        key, rate = str(2000 + n), f"bad {n}"
        payload = item(key, rate)
        id_ = await place.letter(key, payload=payload, error_message=former.format(rate))
        found.append((id_, PRODUCT, key))
    return found


async def test_four_hopeless_letters_of_58_stop_no_drain(place: Place) -> None:
    """Two die again of what they had died of, two are set aside, and 54 are drained."""
    bad = await hopeless(place, 4, BAD_RATE)
    await place.plan([*bad[:2], *await products(place, 54), *bad[2:]])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.PASS, drained.conclusion.sentence
    ends = drained.ends()
    assert (len(ends["completed"]), ends["dead_letter"], ends["left"]) == (
        54,
        ["2000", "2001"],
        ["2002", "2003"],
    )
    assert drained.conclusion.sentence.startswith(
        "54 of 54 completed (100 %), 2 failed as before; 2 set aside"
    )
    assert drained.conclusion.note.left == 2
    [(reason, number)] = (drained.conclusion.note.set_aside or {}).items()
    assert number == 2
    assert reason.startswith("Product: 2 of 2 with this error did not complete (rate:")


async def test_what_is_set_aside_stays_the_dead_letter_that_it_was(place: Place) -> None:
    """Batch, status and report say how many letters, and why."""
    bad = await hopeless(place, 4, BAD_RATE)
    await place.plan([*bad, *await products(place, 6)])
    drained = await place.drain()
    async with place.engine.connect() as tx:
        rows = await tx.execute(
            text(
                "SELECT status::text, attempt_count, error_message FROM tds_sync_queue WHERE id = ANY(:ids)"
            ),
            {"ids": [id_ for id_, _, _ in bad[2:]]},
        )
        assert {tuple(row) for row in rows} == {
            ("dead_letter", 3, BAD_RATE.format("bad 2")),
            ("dead_letter", 3, BAD_RATE.format("bad 3")),
        }
    last = (await dead_letters.batches(place.engine, place.run))[-1]
    assert "2 set aside: 2 Product (rate)" in last.sentence
    view = await snapshot.read(place.engine, "staging", place.run.id)
    assert (view.events_planned, view.events_set_aside) == (10, 2)
    assert any("8 of 10 settled, 2 set aside, batches 1 " in line for line in lines(view, 100))
    await releases.enter(
        place.engine,
        place.run,
        Phase.WATCHING,
        verdict=Verdict.PASS,
        sentence=drained.conclusion.sentence,
        note=drained.conclusion.note,
    )
    letters = (await gather.gather(place.core, place.run))["dead_letters"]
    [(reason, number)] = letters["set_aside"].items()
    assert (letters["left"], letters["why_left"], number) == (2, "", 2)
    assert reason.startswith("Product: 2 of 2 with this error did not complete (rate:")


async def test_an_old_error_of_the_type_is_no_evidence(place: Place) -> None:
    """Letters that had died of greenlet_spawn die of what others of their type had died of: nothing is new."""
    seen = await hopeless(place, 1, BAD_RATE)
    bad = [
        (await place.letter(key, payload=item(key, f"x {key}")), PRODUCT, key)
        for key in ("3000", "3001", "3002", "3003")
    ]
    await place.plan([*seen, *bad])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.INCONCLUSIVE
    assert "failed as before: this revision cures none" in drained.conclusion.sentence
    assert len(drained.ends()["left"]) == 2


async def test_new_errors_of_all_types_roll_back(place: Place) -> None:
    """Three of three: the rest stays untouched."""
    letters = [
        (await place.letter("1", payload=item("1", "bad")), PRODUCT, "1"),
        (await place.letter("2", CUSTOMER, customer("2", credit_limit="bad")), CUSTOMER, "2"),
        (await place.letter("3", BILL, {"bill_id": "3", "total": "bad"}), BILL, "3"),
    ]
    await place.plan([*letters, *await products(place, 20)])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.FAIL
    assert drained.conclusion.sentence.startswith("all types: 3 of 3 failed anew (")
    assert (drained.batches, len(drained.ends()["left"])) == ((3,), 20)


async def test_four_hopeless_letters_of_their_own_type_are_set_aside(place: Place) -> None:
    """Their error is new to them. Two failed, and two of 30 letters are too few to go on for."""
    bills = [
        (await place.letter(str(n), BILL, {"bill_id": str(n), "total": "bad"}), BILL, str(n))
        for n in range(4)
    ]
    await place.plan([*await products(place, 26), *bills])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.PASS, drained.conclusion.sentence
    assert drained.ends()["left"] == ["2", "3"]
    assert drained.conclusion.sentence.startswith(
        "26 of 28 completed (92.8 %), 2 failed; 2 set aside: 2 Bill ("
    )


async def test_letters_that_no_worker_takes_are_stuck(stalled: Place) -> None:
    """Three of them, open past the limit and held by nobody, are a breach."""
    customers = [(await stalled.letter(key, CUSTOMER, customer(key)), CUSTOMER, key) for key in ("7", "8")]
    bill = (await stalled.letter("9", BILL, {"bill_id": "9"}), BILL, "9")
    await stalled.plan([*await products(stalled, 5), *customers, bill])
    drained = await stalled.drain()
    assert drained.conclusion.verdict is Verdict.FAIL
    assert drained.conclusion.sentence.startswith("all types: 3 of 3 failed anew (stuck)")
    assert drained.batches == (3,)


async def test_a_letter_that_completes_late_counts_as_completed(stalled: Place) -> None:
    """It was stuck when its batch was judged; the next judgement sees how it stands, and the ledger too."""
    [first, second] = await products(stalled, 2)
    await stalled.plan([first, second])
    assert await drain.next_batch(stalled.core, stalled.run) == 1
    judged = await drain.settle(stalled.core, stalled.run, 1)
    assert judged.sentence == "0 of 1 completed, 1 stuck: this revision cures none"
    await change(stalled.engine, first[0], status="completed")
    assert await drain.next_batch(stalled.core, stalled.run) == 2
    await change(stalled.engine, second[0], status="completed")
    judged = await drain.settle(stalled.core, stalled.run, 2)
    assert judged.sentence == "2 of 2 completed (100 %)"
    assert {event.status for event in await dead_letters.events(stalled.engine, stalled.run)} == {"completed"}
    assert [
        (each.completed, each.open) for each in await dead_letters.batches(stalled.engine, stalled.run)
    ] == [
        (1, 0),
        (1, 0),
    ]


async def test_a_retry_of_the_old_error_is_known_before_it_is_a_dead_letter(stalled: Place) -> None:
    """It is open past the limit, because the worker retries it: what it had died of is no news."""
    [letter] = await hopeless(stalled, 1, BAD_RATE)
    await stalled.plan([letter])
    error = BAD_RATE.format("bad 0")
    judged = await stalled.run_first(letter[0], status="retry", error_code="22P02", error_message=error)
    assert judged.sentence == "0 of 1 completed, 1 failed as before: this revision cures none"


async def test_an_instant_error_rolls_back_at_once(stalled: Place) -> None:
    """One letter in retry is enough, among successes."""
    letters = await products(stalled, 3)
    await stalled.plan(letters)
    judged = await stalled.run_first(
        letters[0][0], status="retry", error_message=f"MissingGreenlet: {GREENLET}"
    )
    assert judged.verdict is Verdict.FAIL
    assert "one such error is a breach" in judged.sentence


async def test_what_a_limit_holds_is_not_stuck(stalled: Place) -> None:
    """A person holds products after the batch was judged: its letter is open again, and no failure."""
    letters = await products(stalled, 2)
    await stalled.plan(letters)
    await drain.next_batch(stalled.core, stalled.run)
    await drain.settle(stalled.core, stalled.run, 1)
    await limits.limit(stalled.engine, PRODUCT, per_ten_seconds=0, seconds=60, by="ops-b", reason="test")
    concluded = await drain.conclude(stalled.core, stalled.run)
    assert (concluded.verdict, concluded.sentence[:39]) == (
        Verdict.INCONCLUSIVE,
        "no letter has settled, 1 still open: no",
    )


async def test_a_child_goes_with_its_parent_or_after_it(place: Place) -> None:
    """Nine customers and nine invoices of the last ones: no invoice waits for a customer that is not sent yet."""
    customers = [
        (await place.letter(str(n), CUSTOMER, customer(str(n))), CUSTOMER, str(n)) for n in range(1, 10)
    ]
    invoices = [
        (await place.letter(str(n), INVOICE, invoice(str(n), str(n - 91))), INVOICE, str(n))
        for n in range(100, 92, -1)
    ]
    await place.plan([*customers, *invoices])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.PASS, drained.conclusion.sentence
    assert set(drained.ends()) == {"completed"}
    batch_of = {event.source_entity_id: event.batch or 0 for event in drained.events}
    assert all(batch_of[str(n)] >= batch_of[str(n - 91)] for n in range(93, 101))
    assert max(batch_of.values()) <= 6


async def test_a_child_whose_parent_is_set_aside_is_not_sent(place: Place) -> None:
    """It would wait in vain, and count as a failure. A child whose parent exists already is sent."""
    customers = [
        (
            await place.letter(
                str(n),
                CUSTOMER,
                customer(str(n), credit_limit=f"bad {n}"),
                error_message=f'credit_limit: must be a number, not "bad {n}"',
            ),
            CUSTOMER,
            str(n),
        )
        for n in range(1, 5)
    ]
    good = (await place.letter("50", CUSTOMER, customer("50")), CUSTOMER, "50")
    invoices = [
        (await place.letter(str(n), INVOICE, invoice(str(n), owner)), INVOICE, str(n))
        for n, owner in ((101, "2"), (102, "3"), (103, "50"), (104, "50"))
    ]
    await place.plan([*customers, good, *invoices])
    drained = await place.drain()
    assert drained.conclusion.verdict is Verdict.PASS, drained.conclusion.sentence
    ends = drained.ends()
    assert ends["completed"] == ["50", "103", "104"]
    assert ends["left"] == ["3", "4", "101", "102"]
    reasons = drained.conclusion.note.set_aside or {}
    assert reasons["Invoice: needs a record whose own letters failed or are set aside"] == 2


async def test_letters_that_were_handled_elsewhere_are_skipped(place: Place) -> None:
    """Somebody redrove one of them meanwhile."""
    letters = await products(place, 3)
    await place.plan(letters)
    await change(place.engine, letters[1][0], status="completed")
    drained = await place.drain()
    assert drained.conclusion.sentence == "2 of 2 completed (100 %); 2 batches"
    assert drained.conclusion.note.set_aside == {}


async def test_a_drain_without_letters_passes(place: Place) -> None:
    """There is nothing to judge."""
    drained = await place.drain()
    assert (drained.conclusion.verdict, drained.conclusion.sentence) == (
        Verdict.PASS,
        "no dead letter to drain",
    )


async def test_a_restarted_drain_continues_with_the_batch_that_has_not_settled(place: Place) -> None:
    """Nothing is sent twice."""
    await place.plan(await products(place, 9))
    assert await drain.next_batch(place.core, place.run) == 1
    assert await drain.next_batch(place.core, place.run) == 1
    drained = await place.drain()
    assert (drained.batches, set(drained.ends())) == ((1, 2, 4, 2), {"completed"})


async def test_every_stored_judgement_can_be_made_again(place: Place) -> None:
    """From the ledger's inputs, with the same words."""
    bad = await hopeless(place, 4, BAD_RATE)
    await place.plan([*bad, *await products(place, 9)])
    await place.drain()
    stored = await records.judgements(place.engine, place.run)
    assert len(stored) == len(await dead_letters.batches(place.engine, place.run))
    for record in stored:
        again = rules.judge(**record.inputs)
        assert (again.finding, again.sentence) == (record.finding, record.sentence)
