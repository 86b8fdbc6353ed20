"""The receiver over real HTTP and on a real database: what is kept, what is refused, and what is never lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.entities import registry
from handlers.queue import redrive
from handlers.queue.event import ENTITY_TYPES, EntityType, Operation
from handlers.receiver.intake import webhooks_of
from handlers.receiver.writer import Call, write
from handlers.worker.worker import Worker
from tests.integration.queue.events import change
from tests.integration.receiver.calls import (
    ITEM,
    SECRET,
    TRANSPORT,
    USER,
    body,
    bury_all,
    form,
    receiver,
    rows,
    signed,
)

JSON = {"Content-Type": "application/json;charset=UTF-8"}


BAD_CALLS: list[tuple[str, dict[str, Any], int]] = [
    ("/webhooks/branches", {"content": body(ITEM)}, 404),
    ("/webhooks/", {"content": body(ITEM)}, 404),
    ("/elsewhere", {"content": body(ITEM)}, 404),
    ("/webhooks/products", {"content": b'{"item":'}, 400),
    ("/webhooks/products", {"content": b'{"item": {"item_id": "\xff"}}'}, 400),
    ("/webhooks/products?event=renamed", {"content": body(ITEM)}, 400),
    ("/webhooks/products", {"content": b"item_id=1&item_id=2"}, 400),
    ("/webhooks/products", {"content": b'{"item": {"name": "x"}}'}, 422),
    ("/webhooks/products", {"content": b'{"invoice": {"invoice_id": "1"}}'}, 422),
    ("/webhooks/products", {"content": b'{"item": {"item_id": "1", "name": "\\u0000"}}'}, 422),
    ("/webhooks/products?event=deleted", {"content": b'{"code": 0, "message": "deleted"}'}, 422),
    ("/webhooks/payments", {"content": b'{"vendorpayment": {"payment_id": "1"}}'}, 422),
    ("/webhooks/products", {"content": body(ITEM), "headers": {"Content-Type": "text/xml"}}, 415),
    ("/webhooks/products", {"content": body(ITEM), "headers": {"Content-Encoding": "gzip"}}, 415),
]


@pytest_asyncio.fixture(loop_scope="session")
async def client(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A receiver on loopback that asks for no signature."""
    async with receiver(engine) as client:
        yield client


async def post(client: httpx.AsyncClient, content: bytes, path: str = "/webhooks/products") -> dict[str, Any]:
    """An answer that must be a success."""
    answer = await client.post(path, content=content, headers=JSON)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


class TestSignature:
    @pytest.mark.parametrize("number", [4, 5])
    async def test_a_published_call_gets_in_signed_and_not_otherwise(
        self, engine: AsyncEngine, number: int
    ) -> None:
        """The vectors of the source, as JSON and as a form; without signature, or with another's, nothing is kept."""
        vector = json.loads((TRANSPORT / f"{number}.json").read_text(encoding="utf-8"))
        path = "/webhooks/items" if number == 4 else "/webhooks/invoices"
        headers = {"Content-Type": vector["content_type"]}
        for bad in (
            {},
            signed(b"something else"),
            signed(vector["string_to_sign"].encode(), "another secret 1"),
        ):
            async with receiver(engine, secret=SECRET) as client:
                answer = await client.post(path, content=vector["body"], headers=headers | bad)
                assert answer.status_code == 401
                assert await rows(engine) == []
        async with receiver(engine, secret=SECRET) as client:
            answer = await client.post(path, content=vector["body"], headers=headers | vector["headers"])
        assert answer.status_code == 200
        (row,) = await rows(engine)
        assert row["signature_verified"] is True

    async def test_the_query_is_signed_too(self, engine: AsyncEngine) -> None:
        """Changing an edit into a delete in the URL breaks the signature."""
        headers = signed(b"eventedited" + body(ITEM))
        async with receiver(engine, secret=SECRET) as client:
            for query, status in (("?event=deleted", 401), ("", 401), ("?event=edited", 200)):
                answer = await client.post(f"/webhooks/products{query}", content=body(ITEM), headers=headers)
                assert answer.status_code == status
        (row,) = await rows(engine)
        assert row["operation"] == "update"

    async def test_the_signature_is_looked_at_before_the_body_is_read(self, engine: AsyncEngine) -> None:
        """A stranger learns nothing about what would be accepted: garbage without a signature is 401."""
        async with receiver(engine, secret=SECRET) as client:
            for raw in (b"{", b"\xff\xfe", b"[" * 100_000, b"a=1&a=2"):
                assert (await client.post("/webhooks/products", content=raw)).status_code == 401

    async def test_no_key_is_kept(self, engine: AsyncEngine) -> None:
        """Of headers that may hold a secret only the names are stored."""
        headers = signed(body(ITEM)) | {"X-Webhook-Key": "sentinel-1", "Authorization": "Bearer sentinel-2"}
        headers |= {"X-Anything": "sentinel-3", "Cookie": "sentinel-4", "X-Runbook-Synthetic": "r1"}
        async with receiver(engine, secret=SECRET) as client:
            assert (await client.post("/webhooks/products", content=body(ITEM), headers=headers)).is_success
        (row,) = await rows(engine)
        everything = json.dumps({name: str(value) for name, value in row.items()})
        assert "sentinel" not in everything
        assert headers["X-Zoho-Webhook-Signature"] not in everything
        assert row["webhook_headers"]["x-webhook-key"] == "***"
        # Only our own events may call themselves synthetic: they do not count as live traffic.
        assert "x-runbook-synthetic" not in row["webhook_headers"]


class TestForms:
    @pytest.mark.parametrize(
        "call",
        [
            {"content": body(ITEM), "headers": JSON},
            {"content": body(ITEM), "headers": {}},
            {"content": b"\xef\xbb\xbf" + body(ITEM), "headers": JSON},
            {"content": body(ITEM), "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            {"content": json.dumps({"code": 0, "message": "success", "item": ITEM}), "headers": JSON},
            {"content": json.dumps({"payload": json.dumps({"item": ITEM})}), "headers": JSON},
            {"content": json.dumps(ITEM), "headers": JSON},
            form(JSONString=json.dumps({"item": ITEM})),
            form(payload=json.dumps({"item": ITEM})),
            form(item=json.dumps(ITEM)),
            form(JSONString=json.dumps({"item": ITEM}), organization_id="10234695"),
            form(**{name: str(value) for name, value in ITEM.items()}),
        ],
        ids=range(12),
    )
    async def test_every_form_of_the_source_is_one_event(
        self, engine: AsyncEngine, client: httpx.AsyncClient, call: dict[str, Any]
    ) -> None:
        """JSON, wrapped and flat, in a form's field, and the older form that has every number as text."""
        answer = await client.post("/webhooks/products?event=edited", **call)
        assert answer.status_code == 200, answer.text
        (row,) = await rows(engine)
        (record,) = registry.unwrap(EntityType.PRODUCT, json.dumps(row["validated_payload"]))
        assert record.data["name"] == ITEM["name"]
        assert (row["kind"], row["source_entity_id"], row["status"]) == (
            "product",
            ITEM["item_id"],
            "pending",
        )
        assert (row["is_valid"], row["moved_to_queue"], row["ip_address"]) == (True, True, "127.0.0.1")

    @pytest.mark.parametrize("entity", EntityType)
    async def test_every_kind_gets_in_and_is_applied(
        self, engine: AsyncEngine, client: httpx.AsyncClient, entity: EntityType
    ) -> None:
        """Each of the eleven reaches the queue under the queue's own name, and a worker finds a record in it."""
        handler = registry.handler(entity)
        record = {handler.id_keys[0]: "17", "contact_type": entity.value.lower()}
        await post(client, body(record, handler.wrappers[0]), f"/webhooks/{entity.value}")
        (row,) = await rows(engine)
        assert ENTITY_TYPES[row["kind"]] is entity
        worker = Worker(engine, owner="w", revision="r1")
        assert await worker.step() == 1
        (row,) = await rows(engine)
        assert row["status"] in ("completed", "dead_letter", "retry")
        assert "holds no" not in (row["error_message"] or "")

    @pytest.mark.parametrize("raw", [b"payload=", b'{"payload": ""}', b"", b"JSONString="])
    async def test_a_check_call_is_answered_and_ignored(self, engine: AsyncEngine, raw: bytes) -> None:
        """Else a webhook could not be saved at the source. It is empty, so it needs no signature."""
        async with receiver(engine, secret=SECRET) as client:
            answer = await client.post("/webhooks/invoices", content=raw)
            assert (answer.status_code, answer.json()["status"]) == (200, "ignored")
        assert await rows(engine) == []

    async def test_numbers_stay_exact(self, engine: AsyncEngine, client: httpx.AsyncClient) -> None:
        """Money keeps its digits and long ids theirs, from the wire to the queue."""
        await post(
            client, b'{"item": {"item_id": 2646610000000113827, "rate": 10.10, "x": 0.1000000000000000055}}'
        )
        async with engine.connect() as tx:
            found = await tx.execute(
                text("SELECT validated_payload::text, source_entity_id FROM tds_sync_queue")
            )
            payload, key = found.one()
        assert "10.10" in payload
        assert "0.1000000000000000055" in payload
        assert key == "2646610000000113827"

    async def test_a_list_is_an_event_for_each_record(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """An event is about one record, and they are applied in the order of the list."""
        told = await post(
            client, json.dumps({"items": [ITEM | {"item_id": str(n)} for n in range(30)]}).encode()
        )
        found = await rows(engine)
        assert [row["source_entity_id"] for row in found] == [str(n) for n in range(30)]
        assert [str(row["id"]) for row in found] == told["events"]

    async def test_a_list_with_one_bad_record_is_refused_whole(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """Half a call is no call: the source would never send the other half again."""
        answer = await client.post("/webhooks/items", json={"items": [ITEM, {"name": "no id"}]})
        assert answer.status_code == 422
        assert await rows(engine) == []

    async def test_deleted_is_known_from_the_address_alone(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """The body of a delete is the last record, so it says the same as the edit before it; both are queued."""
        await post(client, body(ITEM), "/webhooks/products?event=created")
        await post(client, body(ITEM), "/webhooks/products?event=edited")
        await post(client, body(ITEM), "/webhooks/products?event=deleted")
        assert [row["operation"] for row in await rows(engine)] == ["create", "delete"]


class TestDuplicates:
    async def test_the_same_version_again_is_not_queued(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """Answered with success, because it is known, however it is printed and whatever came in between."""
        newer = ITEM | {"rate": 13, "last_modified_time": "2025-11-04T15:20:12+0300"}
        assert (await post(client, body(ITEM)))["status"] == "queued"
        assert (await post(client, body(newer)))["status"] == "queued"
        assert (await post(client, body(ITEM | {"rate_formatted": "Rs. 12.5"})))["status"] == "duplicate"
        assert len(await rows(engine)) == 2

    async def test_a_second_change_at_once_and_a_late_one_are_queued(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """The ERP lost a change within ten minutes of another, and answered 500 to one after that."""
        for second in range(5):
            stamp = f"2025-11-04T15:20:{second:02d}+0300"
            assert (await post(client, body(ITEM | {"last_modified_time": stamp})))["status"] == "queued"
        async with engine.begin() as tx:
            await tx.execute(
                text("UPDATE tds_inbox_events SET received_at = received_at - interval '1 hour'")
            )
        stamp = "2025-11-04T16:00:00+0300"
        assert (await post(client, body(ITEM | {"last_modified_time": stamp})))["status"] == "queued"
        assert len(await rows(engine)) == 6

    async def test_without_a_stamp_a_change_back_is_a_change(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """Users carry no stamp: what they were before is only known from the newest event."""
        away = USER | {"status": "inactive"}
        for record, status in ((USER, "queued"), (USER, "duplicate"), (away, "queued"), (USER, "queued")):
            assert (await post(client, body(record, "user"), "/webhooks/users"))["status"] == status
        told = [row["validated_payload"]["user"]["status"] for row in await rows(engine)]
        assert told == ["active", "inactive", "active"]

    async def test_the_same_in_one_call_is_one(self, engine: AsyncEngine, client: httpx.AsyncClient) -> None:
        """What a single transaction writes is compared as well: A, A, B, A of a user is three changes."""
        away = USER | {"status": "inactive"}
        told = await post(client, json.dumps({"users": [USER, USER, away, USER]}).encode(), "/webhooks/users")
        assert (len(told["events"]), told["duplicates"]) == (3, 1)
        told = await post(client, json.dumps({"items": [ITEM, ITEM | {"rate": 1}, ITEM]}).encode())
        assert (len(told["events"]), told["duplicates"]) == (2, 1)

    async def test_what_ended_as_a_dead_letter_may_come_again(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """Sending it again is how a person tries again: a receiver that says "known" would lose it."""
        await post(client, body(ITEM))
        await bury_all(engine)
        assert (await post(client, body(ITEM)))["status"] == "queued"
        assert (await post(client, body(ITEM)))["status"] == "duplicate"

    async def test_a_completed_event_still_counts(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """A late second delivery of what was applied long ago is no work."""
        told = await post(client, body(ITEM))
        (row,) = await rows(engine)
        await change(engine, row["id"], status="completed", completed_at="sql:now()")
        assert (await post(client, body(ITEM)))["status"] == "duplicate"
        assert told["status"] == "queued"

    async def test_many_at_once_are_one(self, engine: AsyncEngine) -> None:
        """Two receivers, forty deliveries of one webhook at the same moment: exactly one event."""
        async with receiver(engine) as one, receiver(engine) as other:
            told = await asyncio.gather(*(post(each, body(ITEM)) for each in (one, other) for _ in range(20)))
        assert sorted(each["status"] for each in told) == ["duplicate"] * 39 + ["queued"]
        assert len(await rows(engine)) == 1

    async def test_a_second_receiver_waits_for_the_first(self, engine: AsyncEngine) -> None:
        """While one has written a webhook and not committed, another cannot take it for new."""
        call = Call(
            webhooks=webhooks_of(EntityType.PRODUCT, body(ITEM).decode(), Operation.UPDATE),
            headers="{}",
            address=None,
            verified=True,
        )
        async with engine.connect() as first, engine.connect() as second:
            assert len((await write(first, [call]))[0].events) == 1
            other = asyncio.create_task(write(second, [call]))
            await asyncio.sleep(0.3)
            assert not other.done()
            await first.commit()
            assert (await other)[0].duplicates == 1
            await second.commit()
        assert len(await rows(engine)) == 1

    async def test_order_is_kept_within_one_transaction(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """Events of one record that are written together are applied in the order in which they came."""
        users = [USER | {"name": str(n)} for n in range(50)]
        await post(client, json.dumps({"users": users}).encode(), "/webhooks/users")
        names = [row["validated_payload"]["user"]["name"] for row in await rows(engine)]
        assert names == [str(n) for n in range(50)]


class TestRefusals:
    async def test_a_bad_call_is_refused_in_one_sentence(
        self, engine: AsyncEngine, client: httpx.AsyncClient
    ) -> None:
        """With a status that fits, no stack trace, and nothing kept."""
        for path, call, status in BAD_CALLS:
            answer = await client.post(path, **call)
            assert answer.status_code == status, (path, call, answer.text)
            told = answer.json()
            assert told["status"] == "refused"
            assert "\n" not in told["reason"]
            assert "Traceback" not in answer.text
        assert await rows(engine) == []

    async def test_only_post_sends_webhooks(self, client: httpx.AsyncClient) -> None:
        """Looking at the address with a browser says so."""
        assert (await client.get("/webhooks/products")).status_code == 405

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_large_body_is_refused_before_it_is_read(
        self, engine: AsyncEngine, announced: bool
    ) -> None:
        """By its announced length at once; without one after no more than the limit."""
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(2000):
                sent += 65536
                yield b"x" * 65536
                await asyncio.sleep(0)

        async with receiver(engine, body_bytes_max=100_000) as client:
            if announced:
                answer = await client.post("/webhooks/products", content=b"x" * 100_001)
            else:
                try:
                    answer = await client.post("/webhooks/products", content=chunks())
                except httpx.TransportError:
                    assert sent < 2000 * 65536  # the connection was closed in the middle
                    return
            assert answer.status_code == 413
            assert answer.headers["connection"] == "close"

    async def test_a_body_of_the_limit_is_taken(self, engine: AsyncEngine) -> None:
        """The limit itself is allowed."""
        raw = body(ITEM | {"description": ""})
        raw = body(ITEM | {"description": "x" * (5000 - len(raw))})
        async with receiver(engine, body_bytes_max=5000) as client:
            assert (await post(client, raw))["status"] == "queued"

    async def test_a_slow_body_is_given_up(self, engine: AsyncEngine) -> None:
        """A slow client does not keep its slot forever."""

        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(5)

        async with receiver(engine, body_seconds=0.2) as client:
            try:
                answer = await client.post("/webhooks/products", content=never())
            except httpx.TransportError:
                return
            assert answer.status_code == 408

    async def test_a_flood_is_told_to_wait(self, engine: AsyncEngine) -> None:
        """429 with the seconds after which it may go on; what was refused is not kept."""
        async with receiver(engine, per_minute_max=60) as client:
            answers = [
                await client.post("/webhooks/products", content=body(ITEM | {"item_id": str(n)}))
                for n in range(15)
            ]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 3
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert len(await rows(engine)) == 15 - len(refused)

    async def test_a_caller_that_leaves_hurts_nobody(self, engine: AsyncEngine) -> None:
        """A connection that ends in the middle of a body is no record and no error."""
        async with receiver(engine) as client:
            port = client.base_url.port
            assert port is not None
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST /webhooks/products HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
                await writer.drain()
                writer.close()
            assert (await post(client, body(ITEM)))["status"] == "queued"
        assert len(await rows(engine)) == 1


class TestDatabase:
    async def test_a_value_that_only_the_database_refuses_harms_no_other_call(
        self, engine: AsyncEngine
    ) -> None:
        """Calls that are written together are written without the one that cannot be."""
        async with engine.begin() as tx:
            await tx.execute(
                text("ALTER TABLE tds_sync_queue ADD CONSTRAINT no_17 CHECK (source_entity_id <> '17')")
            )
        async with receiver(engine) as client:
            answers = await asyncio.gather(
                *(client.post("/webhooks/items", json={"item": {"item_id": str(n)}}) for n in range(30))
            )
        assert [n for n, answer in enumerate(answers) if answer.status_code != 200] == [17]
        assert answers[17].status_code == 422
        assert len(await rows(engine)) == 29

    async def test_calls_that_come_together_are_written_together(self, engine: AsyncEngine) -> None:
        """While one transaction is under way the next calls gather: many calls, few commits."""
        async with receiver(engine) as client, engine.connect() as tx:
            async with engine.begin() as blocking:
                # The first group waits here, and so all the others gather behind it.
                await blocking.execute(text("LOCK TABLE tds_inbox_events IN EXCLUSIVE MODE"))
                calls = [
                    asyncio.create_task(client.post("/webhooks/items", json={"item": {"item_id": str(n)}}))
                    for n in range(90)
                ]
                await asyncio.sleep(1)
            answers = await asyncio.gather(*calls)
            assert {answer.status_code for answer in answers} == {200}
            found = await tx.execute(text("SELECT count(DISTINCT xmin::text), count(*) FROM tds_sync_queue"))
            groups, events = found.one()
        assert events == 90
        assert groups < 30

    async def test_a_locked_record_is_503_and_never_a_lie(self, engine: AsyncEngine) -> None:
        """What cannot be written in time is refused with a time to come back, and is queued then."""
        async with receiver(engine, write_seconds=0.5) as client:
            async with engine.begin() as tx:
                await tx.execute(text("LOCK TABLE tds_inbox_events IN ACCESS EXCLUSIVE MODE"))
                answer = await client.post("/webhooks/products", content=body(ITEM))
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
            assert (await post(client, body(ITEM)))["status"] == "queued"
        assert len(await rows(engine)) == 1

    async def test_a_database_without_the_queue_is_503(self, engine: AsyncEngine) -> None:
        """Nothing is lost silently, and the health answer says why."""
        async with engine.begin() as tx:
            await tx.execute(text("ALTER TABLE tds_sync_queue RENAME TO hidden"))
        async with receiver(engine) as client:
            assert (await client.post("/webhooks/products", content=body(ITEM))).status_code == 503
            health = await client.get("/health")
            assert (health.status_code, health.json()["database"]) == (503, "without the queue's tables")

    async def test_the_numbers_tell_what_happened(self, engine: AsyncEngine) -> None:
        """Received, queued, duplicates and refusals by reason, and how long it took."""
        async with receiver(engine, secret=SECRET) as client:
            for _ in range(2):
                await client.post("/webhooks/products", content=body(ITEM), headers=signed(body(ITEM)))
            await client.post("/webhooks/products", content=body(ITEM))
            await client.post("/webhooks/branches", content=body(ITEM))
            numbers = (await client.get("/metrics")).text
        for line in (
            'runbook_webhooks_received_total{kind="Product"} 2.0',
            'runbook_webhook_events_queued_total{kind="Product"} 1.0',
            'runbook_webhook_events_duplicate_total{kind="Product"} 1.0',
            'runbook_webhooks_refused_total{reason="signature"} 1.0',
            'runbook_webhooks_refused_total{reason="unknown_kind"} 1.0',
            "runbook_webhook_seconds_count 4.0",
        ):
            assert line in numbers

    async def test_the_workers_are_woken(self, database_url: str, client: httpx.AsyncClient) -> None:
        """What is queued calls them when it is committed; a duplicate leaves them alone."""
        heard: asyncio.Queue[object] = asyncio.Queue()
        connection = await asyncpg.connect(database_url)
        try:
            await connection.add_listener(redrive.CHANNEL, lambda *words: heard.put_nowait(words))
            for _ in range(2):
                await post(client, body(ITEM))
            await asyncio.wait_for(heard.get(), 10)
            await post(client, body(ITEM | {"item_id": "2"}))
            await asyncio.wait_for(heard.get(), 10)
            assert heard.empty()
        finally:
            await connection.close()
