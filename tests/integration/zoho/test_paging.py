"""Lists that move, lie or end while they are read: nothing is lost, and nothing is deleted by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handlers.errors import ExitCode
from handlers.queue.event import EntityType
from handlers.zoho.runs import Kind, State
from rehearsal.zoho.server import Reply
from tests.integration.zoho.sources import P, fill, item, place


def pages(rows: list[dict[str, Any]], *, more: bool | None = None, **context: str) -> Reply:
    """A page of items as the source writes it."""
    about = {} if more is None else {"page_context": {"has_more_page": more, **context}}
    return Reply(status=200, body={"code": 0, "message": "success", "items": rows, **about})


async def test_records_that_change_or_vanish_while_paging_are_not_lost(
    tmp_path: Path, database_url: str
) -> None:
    """A change moves a record to the front, a delete moves all others forward: each over the edge of a page."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 450)
        organisation = here.source.organisation
        done: set[str] = set()

        def moved(path: str, query: Mapping[str, str]) -> None:
            number = query.get("page")
            if not path.endswith("/items") or number is None or f"{number}" in done or len(done) > 3:
                return
            done.add(number)
            if number == "2":
                # The first of the second page is on the first one now, which was read already.
                organisation.delete(P, keys[0])
                organisation.delete(P, keys[1])
            if number == "3":
                organisation.change(P, keys[440], name="changed while paging")
                organisation.put(P, item(0, item_id="999", last_modified_time="2026-11-29T10:00:00+0300"))

        here.source.before = moved
        found = await here.sync_and_work(Kind.FULL, P)
        assert found.state is State.DONE
        stored = await here.column(P, "name")
        # What was deleted after it was listed is found by the next one.
        assert stored.keys() == {*organisation.keys(P), keys[0], keys[1]}
        assert stored[keys[440]] == "changed while paging"
        # The list was read again, and the records were not.
        assert here.source.asked("/items/") <= 450 + 2 + 2 + 2
        events = [event.key for event in await here.events() if event.operation != "delete"]
        assert len(events) == len(set(events)) == 451
        assert (await here.sync_and_work(Kind.FULL, P)).steps[0].deleted == 2
        assert (await here.column(P, "name")).keys() == set(organisation.keys(P))


async def test_an_empty_list_is_no_error(tmp_path: Path, database_url: str) -> None:
    """An organisation without a record of this type, whatever form the nothing has."""
    async with place(tmp_path, database_url) as here:
        assert (await here.sync(Kind.FULL, P)).exit_code is ExitCode.GOOD
        for nothing in ("", None, {}):
            here.source.fail("/items$", Reply(status=200, body={"code": 0, "items": nothing}), times=2)
            assert (await here.sync(Kind.FULL, P)).exit_code is ExitCode.GOOD


async def test_an_empty_page_with_more_behind_it_is_asked_for_again(
    tmp_path: Path, database_url: str
) -> None:
    """It is no end: whatever follows would be taken for deleted."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 450)
        here.source.fail("/items$", pages([], more=True), after=2)
        assert (await here.sync_and_work(Kind.FULL, P)).exit_code is ExitCode.GOOD
        assert (await here.column(P, "name")).keys() == set(keys)
        here.source.fail("/items$", pages([], more=True), times=50)
        stopped = await here.sync(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.STOPPED, ExitCode.OWN_ERROR)
        assert "is empty, but there is said to be another one" in stopped.sentence


async def test_a_list_that_does_not_say_whether_there_is_more(tmp_path: Path, database_url: str) -> None:
    """A full page may have a next one, a shorter one has none."""
    async with place(tmp_path, database_url) as here:
        rows = [item(at) for at in range(230)]
        for row in rows:
            here.source.organisation.put(P, row)
        # Its time, both pages, and both again.
        for part in (rows[:200], rows[:200], rows[200:], rows[:200], rows[200:]):
            here.source.fail("/items$", pages(part))
        assert (await here.sync_and_work(Kind.FULL, P)).steps[0].listed == 230


async def test_a_list_that_ignores_the_order_is_read_to_its_end(tmp_path: Path, database_url: str) -> None:
    """Its first page ends with old rows, and the change is on the second one: it says that it has another order."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 201)
        await here.sync_and_work(Kind.FULL, P)
        here.source.organisation.change(P, keys[200], name="changed")
        order = [here.source.organisation.get(P, key) for key in keys]
        for part, more in ((order[:200], True), (order[:200], True), (order[200:], False)) * 3:
            here.source.fail(
                "/items$", pages([dict(row) for row in part], more=more, sort_column="created_time")
            )
        await here.sync_and_work(Kind.INCREMENTAL, P)
        assert (await here.column(P, "name"))[keys[200]] == "changed"


async def test_what_the_source_deleted_is_deleted(tmp_path: Path, database_url: str) -> None:
    """Softly, as after a webhook. It is found by no list, and asked for by its id."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 4)
        await here.sync_and_work(Kind.FULL, P)
        here.source.organisation.delete(P, keys[2])
        assert (await here.sync_and_work(Kind.INCREMENTAL, P)).steps[0].deleted == 0
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.exit_code, done.steps[0].deleted) == (ExitCode.GOOD, 1)
        assert (await here.column(P, "name")).keys() == set(keys) - {keys[2]}
        # It stays deleted, and is not asked for again.
        asked = here.source.asked(keys[2])
        assert (await here.sync_and_work(Kind.FULL, P)).steps[0].deleted == 0
        assert here.source.asked(keys[2]) == asked


async def test_what_is_only_not_listed_is_not_deleted(tmp_path: Path, database_url: str) -> None:
    """The second look finds it; what changed meanwhile is stored."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 3)
        await here.sync_and_work(Kind.FULL, P)
        here.source.organisation.change(P, keys[0], name="hidden and changed")
        shown = [dict(here.source.organisation.get(P, key)) for key in keys[1:]]
        for _ in range(2):
            here.source.fail("/items$", pages(shown, more=False))
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.steps[0].deleted, done.steps[0].queued) == (0, 1)
        assert (await here.column(P, "name"))[keys[0]] == "hidden and changed"


async def test_a_list_that_lost_too_much_deletes_nothing(tmp_path: Path, database_url: str) -> None:
    """A person looks first: exit code 4, with the command that allows it."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 20)
        await here.sync_and_work(Kind.FULL, P)
        for key in keys[:8]:
            here.source.organisation.delete(P, key)
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.exit_code, done.steps[0].deleted) == (ExitCode.HELD, 0)
        assert "does not list 8 of 20 Product records (40 %, more than 10 %)" in done.sentence
        assert "--entity Product --allow-deletes" in done.sentence
        assert len(await here.column(P, "name")) == 20
        allowed = await here.sync(Kind.FULL, P, deletes_all=True)
        await here.work()
        assert (allowed.exit_code, allowed.steps[0].deleted) == (ExitCode.GOOD, 8)
        assert len(await here.column(P, "name")) == 12


async def test_a_record_made_while_the_list_is_read_is_not_deleted(tmp_path: Path, database_url: str) -> None:
    """A webhook stores it after its page was read; the list has it not, and the source has."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        await here.sync_and_work(Kind.FULL, P)
        listed = [dict(here.source.organisation.get(P, key)) for key in here.source.organisation.keys(P)]
        for _ in range(2):
            here.source.fail("/items$", pages(listed, more=False))
        key = here.source.organisation.put(P, item(900))
        await here.webhook(P, item(900))
        await here.work()
        assert (await here.sync_and_work(Kind.FULL, P)).steps[0].deleted == 0
        assert key in await here.column(P, "name")


async def test_a_row_without_an_id_is_named_and_the_others_are_read(
    tmp_path: Path, database_url: str
) -> None:
    """Nobody can ask for such a record."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 2)
        rows: list[Any] = [{"name": "no id"}, "no row", dict(item(0)), dict(item(1))]
        for _ in range(2):
            here.source.fail("/items$", pages(rows, more=False))
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.exit_code, done.steps[0].unreadable) == (ExitCode.HELD, 2)
        assert "page 1, row 1: item_id: is missing" in done.sentence
        assert (await here.column(P, "name")).keys() == set(keys)


async def test_customers_and_vendors_share_a_list_and_no_table(tmp_path: Path, database_url: str) -> None:
    """They are asked for by their type, and neither deletes the other's."""
    async with place(tmp_path, database_url) as here:
        for entity, number in ((EntityType.CUSTOMER, 1), (EntityType.VENDOR, 2)):
            here.source.organisation.put(
                entity,
                {"contact_id": f"46{number}", "contact_name": f"c{number}", "contact_type": entity.lower(),
                 "status": "active", "last_modified_time": "2025-11-05T10:00:00+0300"},
            )  # fmt: skip
        for _ in range(2):
            await here.sync_and_work(Kind.FULL, EntityType.CUSTOMER, EntityType.VENDOR)
        assert await here.column(EntityType.CUSTOMER, "contact_name") == {"461": "c1"}
        assert await here.column(EntityType.VENDOR, "vendor_name") == {"462": "c2"}
