"""A sync brings the ERP's tables to what the source has, through the queue and the workers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from handlers.errors import ExitCode
from handlers.queue.event import EntityType
from handlers.zoho.runs import Kind, State
from rehearsal.zoho.server import problem
from tests.integration.zoho.sources import P, fill, item, place

OLD = "2025-01-05T10:00:00+0300"


async def test_a_full_sync_fills_the_tables(tmp_path: Path, database_url: str) -> None:
    """Every record of the list is read whole, queued, and applied by a worker; a second one finds nothing to do."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 7)
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.state, done.exit_code) == (State.DONE, ExitCode.GOOD), done.sentence
        assert await here.column(P, "name") == {key: f"item {at}" for at, key in enumerate(keys)}
        assert here.source.asked("/items/") == 7
        again = await here.sync_and_work(Kind.FULL, P)
        assert (again.steps[0].listed, again.steps[0].queued) == (7, 0)
        # Nothing was read one by one, and one token was enough.
        assert (here.source.asked("/items/"), here.source.tokens_given) == (7, 1)


async def test_an_incremental_sync_reads_what_changed(tmp_path: Path, database_url: str) -> None:
    """Since the beginning of the last one, by the source's clock, which may be hours from ours."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 5)
        await here.sync_and_work(Kind.FULL, P)
        here.source.organisation.change(P, keys[3], name="changed")
        before = here.source.asked("/items/")
        done = await here.sync_and_work(Kind.INCREMENTAL, P)
        assert (await here.column(P, "name"))[keys[3]] == "changed"
        assert here.source.asked("/items/") - before == 1
        assert done.steps[0].listed == 1


async def test_lists_without_a_filter_are_read_until_they_are_older(
    tmp_path: Path, database_url: str
) -> None:
    """Contacts take `last_modified_time`, answer with everything, and are cut at the cursor."""
    async with place(tmp_path, database_url) as here:
        for at in range(450):
            here.source.organisation.put(
                EntityType.CUSTOMER, contact(at, f"2025-0{1 + at % 9}-05T10:00:{at % 60:02d}+0300")
            )
        await here.sync_and_work(Kind.FULL, EntityType.CUSTOMER)
        key = here.source.organisation.keys(EntityType.CUSTOMER)[7]
        here.source.organisation.change(EntityType.CUSTOMER, key, contact_name="renamed")
        before = here.source.asked("/contacts$")
        await here.sync_and_work(Kind.INCREMENTAL, EntityType.CUSTOMER)
        assert (await here.column(EntityType.CUSTOMER, "contact_name"))[key] == "renamed"
        # Its time, and one page: the rest is older.
        assert here.source.asked("/contacts$") - before == 2


def contact(number: int, changed: str = OLD, **values: object) -> dict[str, object]:
    """A customer."""
    return {
        "contact_id": f"36466100000{number:08d}",
        "contact_name": f"customer {number}",
        "contact_type": "customer",
        "status": "active",
        "last_modified_time": changed,
        **values,
    }


async def test_inactive_records_are_no_deletes(tmp_path: Path, database_url: str) -> None:
    """A list has active records only, unless it is asked for all."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 3)
        here.source.organisation.put(P, item(0, status="inactive"))
        await here.sync_and_work(Kind.FULL, P)
        assert await here.column(P, "is_active") == {keys[0]: False, keys[1]: True, keys[2]: True}


async def test_a_drifted_balance_is_stored_without_a_new_change_time(
    tmp_path: Path, database_url: str
) -> None:
    """Only what differs, as of the time of reading. The rest keeps its version, and nothing grows."""
    async with place(tmp_path, database_url) as here:
        customer = EntityType.CUSTOMER
        key = here.source.organisation.put(customer, contact(1, outstanding_receivable_amount=5))
        await here.sync_and_work(Kind.FULL, customer)
        for amount in (6, 7, 8):
            here.source.organisation.clock_ahead += timedelta(minutes=15)
            here.source.organisation.drift(customer, key, outstanding_receivable_amount=amount)
            await here.sync_and_work(Kind.FULL, customer)
        assert (await here.column(customer, "outstanding_receivable_amount"))[key] == 8
        [(versions,)] = await here.query("SELECT zoho_versions::text FROM customers")
        assert " tied" not in versions
        # A later change of the record, in a webhook, counts as before.
        await here.webhook(customer, contact(1, "2025-01-06T10:00:00+0300", contact_name="new name"))
        await here.work()
        row = await here.query("SELECT contact_name, outstanding_receivable_amount FROM customers")
        assert row == [("new name", 8)]


async def test_a_stock_sync_brings_the_stock_and_nothing_else(tmp_path: Path, database_url: str) -> None:
    """With its places, which only the single record has. New items and other changes wait for the other syncs."""
    async with place(tmp_path, database_url) as here:
        places = [{"location_id": "77", "location_name": "Main", "location_stock_on_hand": 5}]
        key = here.source.organisation.put(P, item(1, locations=places))
        await here.sync_and_work(Kind.FULL, P)
        sold = [{**places[0], "location_stock_on_hand": 3}]
        here.source.organisation.drift(P, key, stock_on_hand=3, locations=sold, name="other name")
        here.source.organisation.put(P, item(2))
        done = await here.sync_and_work(Kind.STOCK)
        assert (done.steps[0].listed, done.steps[0].queued) == (2, 1)
        rows = await here.query(
            "SELECT p.name, p.stock_quantity, s.stock_on_hand"
            " FROM products p JOIN product_stock s ON s.product_id = p.id"
        )
        assert rows == [("item 1", 3, 3)]
        again = await here.sync_and_work(Kind.STOCK)
        assert again.steps[0].read == 0


async def test_users_are_compared_whole(tmp_path: Path, database_url: str) -> None:
    """They have no change time. The e-mail is in the list only, and a user that did not change is no event."""
    async with place(tmp_path, database_url) as here:
        user = EntityType.USER
        for number in (1, 2):
            here.source.organisation.put(
                user,
                {
                    "user_id": f"46{number}",
                    "name": f"u{number}",
                    "email": f"u{number}@x.example",
                    "status": "active",
                },
            )
        await here.sync_and_work(Kind.FULL, user)
        assert await here.column(user, "email") == {"461": "u1@x.example", "462": "u2@x.example"}
        here.source.organisation.drift(user, "462", name="renamed")
        done = await here.sync_and_work(Kind.INCREMENTAL, user)
        assert done.steps[0].queued == 1
        assert (await here.column(user, "name"))["462"] == "renamed"
        assert (await here.sync_and_work(Kind.FULL, user)).steps[0].queued == 0


async def test_a_price_list_has_its_change_time_from_the_list(tmp_path: Path, database_url: str) -> None:
    """And its prices from the record. Its name has a blank at its end in the list, which is no difference."""
    async with place(tmp_path, database_url) as here:
        key = fill(here.source, 1)[0]
        prices = EntityType.PRICE_LIST
        record = {
            "pricebook_id": "561",
            "name": "Retail",
            "status": "active",
            "currency_code": "IQD",
            "last_modified_time": OLD,
            "pricebook_items": [{"pricebook_item_id": "1", "item_id": key, "pricebook_rate": 9}],
        }
        here.source.organisation.put(prices, record)
        await here.sync_and_work(Kind.FULL, P, prices)
        [(at, price)] = await here.query(
            "SELECT l.last_modified_time::text, p.price"
            " FROM pricelists l JOIN product_prices p ON p.pricelist_id = l.id"
        )
        assert (at[:10], price) == ("2025-01-05", 9)
        assert (await here.sync_and_work(Kind.FULL, prices)).steps[0].read == 0


async def test_a_webhook_newer_than_the_list_wins(tmp_path: Path, database_url: str) -> None:
    """It comes after the list was read and before the record is applied."""
    async with place(tmp_path, database_url) as here:
        key = fill(here.source, 1)[0]

        def changed(path: str, query: Mapping[str, str]) -> None:
            if path.endswith(key):
                here.source.organisation.drift(P, key, name="as the sync reads it")

        here.source.before = changed
        await here.sync(Kind.FULL, P)
        await here.webhook(P, item(0, name="newest", last_modified_time="2025-12-01T10:00:00+0300"))
        await here.work()
        assert await here.column(P, "name") == {key: "newest"}
        # And in the other order: what is stored is newer than the list.
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.steps[0].queued, await here.column(P, "name")) == (0, {key: "newest"})


async def test_what_a_webhook_has_brought_is_no_event_again(tmp_path: Path, database_url: str) -> None:
    """Also while it still waits in the queue."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 2)
        await here.webhook(P, item(0))
        await here.sync(Kind.FULL, P)
        assert [event.key for event in await here.events()] == [item(1)["item_id"]]


async def test_dead_letters_of_webhooks_are_sent_once_more(tmp_path: Path, database_url: str) -> None:
    """But not those of a sync, which would come with each schedule."""
    async with place(tmp_path, database_url) as here:
        key = here.source.organisation.put(P, item(0, rate="many"))
        for expected in (1, 1):
            done = await here.sync_and_work(Kind.FULL, P)
            assert done.exit_code is ExitCode.GOOD
            assert [(event.key, event.status) for event in await here.events()] == [
                (key, "dead_letter")
            ] * expected
        other = item(1)
        await here.webhook(P, other)
        await here.query("SELECT 1")
        async with here.core.database.begin() as tx:
            await tx.exec_driver_sql(
                f"UPDATE tds_sync_queue SET status = 'dead_letter' WHERE source_entity_id = '{other['item_id']}'"
            )
        here.source.organisation.put(P, other)
        await here.sync_and_work(Kind.FULL, P)
        assert (await here.column(P, "name"))[other["item_id"]] == "item 1"


async def test_webhooks_go_before_what_a_sync_has_queued(tmp_path: Path, database_url: str) -> None:
    """Its events have a worse priority; the claim takes a webhook that came later first."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        await here.sync(Kind.FULL, P)
        await here.webhook(P, item(900))
        rows = await here.query(
            "SELECT source_entity_id, priority FROM tds_sync_queue ORDER BY priority, created_at"
        )
        assert rows[0] == (item(900)["item_id"], 5)
        assert {row.priority for row in rows[1:]} == {7}


async def test_a_sync_waits_until_workers_take_its_events(tmp_path: Path, database_url: str) -> None:
    """At most so many are in the queue. Without a worker it stops, says why, and goes on later."""
    more = "queue_events_max = 50\nqueue_wait_seconds = 0.5"
    async with place(tmp_path, database_url, more) as here:
        fill(here.source, 120)
        stopped = await here.sync(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.STOPPED, ExitCode.HELD)
        assert "is a worker running" in stopped.sentence
        assert len(await here.events()) == 50
        while (done := await here.sync_and_work(Kind.FULL, P)).state is not State.DONE:
            assert len(await here.events()) <= 120
        assert done.run == stopped.run
        assert len(await here.column(P, "name")) == len(await here.events()) == 120


async def test_one_record_that_cannot_be_applied_is_buried_alone(tmp_path: Path, database_url: str) -> None:
    """The other records of its page are applied; one that cannot even be read is counted and named."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 4)
        here.source.organisation.put(P, item(1, rate="many"))
        here.source.fail(f"/items/{keys[2]}$", problem(200, 0, "x"), times=9)
        done = await here.sync_and_work(Kind.FULL, P)
        assert sorted(await here.column(P, "name")) == [keys[0], keys[3]]
        assert [(event.key, event.status) for event in await here.events() if event.key == keys[1]] == [
            (keys[1], "dead_letter")
        ]
        assert (done.exit_code, done.steps[0].unreadable) == (ExitCode.HELD, 1)
        assert keys[2] in done.sentence
