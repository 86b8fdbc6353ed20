"""What the receiver makes of a call before it asks any database: signature, body, records, rate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.entities import document
from handlers.entities.incoming import Incoming
from handlers.entities.registry import source_key, unwrap
from handlers.queue.event import EntityType, Operation
from handlers.receiver import body, rate, signature
from handlers.receiver.intake import KINDS, kind_of, operation_of, webhooks_of
from handlers.receiver.rejected import Rejected
from handlers.receiver.serve import check, is_loopback

TRANSPORT = Path(__file__).parents[2] / "payloads" / "_transport"
ITEM = {"item_id": "17", "name": "Mouse", "rate": "12.50", "last_modified_time": "2025-11-04T15:20:11+0300"}


def one(record: dict[str, Any], operation: Operation = Operation.UPSERT) -> Incoming:
    (webhook,) = webhooks_of(EntityType.PRODUCT, json.dumps({"item": record}), operation)
    return webhook


class TestSignature:
    @pytest.mark.parametrize("number", [3, 4, 5])
    def test_the_published_vectors_are_genuine(self, number: int) -> None:
        """Signature and signed text agree with the vectors, for JSON with a query and for a form."""
        vector = json.loads((TRANSPORT / f"{number}.json").read_text(encoding="utf-8"))
        raw = vector["body"].encode()
        query = "&".join(f"{name}={quote_plus(value)}" for name, value in vector["query_params"].items())
        in_form = [] if body.is_json(raw) else signature.pairs(raw)
        parameters = [*signature.pairs(query.encode()), *in_form]
        json_body = b"" if in_form else raw
        assert signature.text_to_sign(parameters, json_body).decode() == vector["string_to_sign"]
        given_ = vector["headers"]["X-Zoho-Webhook-Signature"]
        for form in (given_, given_.upper()):
            assert signature.is_genuine(vector["dummy_secret"].encode(), form.encode(), parameters, json_body)

    @pytest.mark.parametrize(
        "bad",
        ["", "0" * 64, "zz" * 32, "é" * 64, "٣" * 64, "0" * 63, "0" * 65, " " + "0" * 64, "0" * 64 + "\n"],
    )
    def test_what_is_no_signature_is_not_genuine(self, bad: str) -> None:
        """Nothing, a wrong one, and a text that is no signature at all are all a no, and raise nothing."""
        assert not signature.is_genuine(b"examplesecret1234", bad.encode(), [], b"{}")

    @given(st.lists(st.tuples(st.text(), st.text())), st.binary(max_size=50), st.integers(0, 49))
    def test_changing_one_byte_breaks_it(self, fields: list[tuple[str, str]], raw: bytes, at: int) -> None:
        """No byte of the body is outside the signature."""
        import hashlib
        import hmac

        parameters = [(a.encode(errors="replace"), b.encode(errors="replace")) for a, b in fields]
        mac = hmac.new(b"k" * 12, signature.text_to_sign(parameters, raw), hashlib.sha256).hexdigest()
        assert signature.is_genuine(b"k" * 12, mac.encode(), parameters, raw)
        if raw:
            changed = bytearray(raw)
            changed[at % len(raw)] ^= 1
            assert not signature.is_genuine(b"k" * 12, mac.encode(), parameters, bytes(changed))


class TestBody:
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"  \n",
            b"payload=",
            b"JSONString=",
            b'{"payload": ""}',
            b'{"payload":""}\n',
            b'{ "item" : " " }',
        ],
    )
    def test_a_check_call_is_known(self, raw: bytes) -> None:
        """The empty samples that are sent when a webhook is saved."""
        assert body.is_check(raw)

    @pytest.mark.parametrize("raw", [b"{}", b"[]", b"null", b"payload=1", b"a=&b=1", b'{"payload": 0}', b"x"])
    def test_what_says_anything_is_no_check_call(self, raw: bytes) -> None:
        """Everything else is read, and refused where it is no record."""
        assert not body.is_check(raw)

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/form-data; boundary=x",
            "application/xml",
            "image/png",
            "text/html",
            "application/json; charset=utf-16",
            "application/json; charset=nonsense",
            "application/json; charset=\x00",
        ],
    )
    def test_other_content_types_are_refused(self, content_type: str) -> None:
        """A webhook is JSON or a form, in UTF-8."""
        with pytest.raises(Rejected) as no:
            body.charset_of(content_type)
        assert no.value.status == 415

    @pytest.mark.parametrize(
        "content_type",
        [
            "",
            "application/json",
            'Application/JSON; Charset="UTF-8"',
            "application/vnd.zoho+json",
            "text/plain",
            "application/x-www-form-urlencoded;charset=ISO-8859-1",
        ],
    )
    def test_the_content_types_of_webhooks_are_taken(self, content_type: str) -> None:
        """With and without a character set, in any case."""
        assert body.charset_of(content_type) in ("utf-8", "iso8859-1")

    def test_a_field_that_stands_twice_is_refused(self) -> None:
        """It is ambiguous which value counts."""
        with pytest.raises(Rejected, match="duplicate form field"):
            body.form_text(signature.pairs(b"item_id=1&item_id=2"), "utf-8")


class TestArrivals:
    def test_every_kind_has_names(self) -> None:
        """All eleven can be addressed, by the queue's own word too."""
        assert set(KINDS.values()) == set(EntityType)
        for kind in EntityType:
            assert kind_of(kind.value) is kind

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("credit-notes", "CreditNote"),
            ("CREDIT_NOTE", "CreditNote"),
            ("items", "Product"),
            ("orders", "SalesOrder"),
            ("customerpayments", "Payment"),
            ("pricebooks", "PriceList"),
            ("inventory_adjustments", "StockAdjustment"),
        ],
    )
    def test_aliases(self, name: str, kind: str) -> None:
        """The source's own words and plurals, with or without marks between."""
        assert kind_of(name) == kind

    @pytest.mark.parametrize("name", ["", "branch", "contacts", "product;drop", "продукт", "a" * 5000])
    def test_another_kind_is_unknown(self, name: str) -> None:
        """404, in one sentence that lists what there is. A contact is a customer or a vendor: say which."""
        with pytest.raises(Rejected) as no:
            kind_of(name)
        assert no.value.status == 404

    @pytest.mark.parametrize("values", [[b"deleted", b"edited"], [b"gone"], [b"created", b"x"], [b"\xff"]])
    def test_an_event_that_is_none_is_refused(self, values: list[bytes]) -> None:
        """What happened is said once and in a known word."""
        with pytest.raises(Rejected) as no:
            operation_of(values)
        assert no.value.status == 400

    @pytest.mark.parametrize(
        "text",
        [
            '{"item": {"name": "no id"}}',
            '{"item": {"item_id": ""}}',
            '{"item": {"item_id": 1.5}}',
            '{"item": []}',
            '{"item": [{"item_id": "1"}, {"name": "no id"}]}',
            '{"item": 5}',
            '{"item": NaN}',
            '{"item": {"item_id": "1", "rate": NaN}}',
            "[]",
            "{}",
            '{"code": 57, "message": "no"}',
            '{"item": {"item_id": "1", "item_id": "2"}}',
            '{"item": {"item_id": "1", "name": "\\u0000"}}',
            '{"item": {"item_id": ' + "9" * 3000 + "}}",
        ],
    )
    def test_a_body_without_a_whole_record_is_refused(self, text: str) -> None:
        """One record that cannot be named is enough: half a call is no call."""
        with pytest.raises(Rejected) as no:
            webhooks_of(EntityType.PRODUCT, text, Operation.UPSERT)
        assert no.value.status == 422

    @pytest.mark.parametrize("text", ["{", "'", '{"item": 1e', "\\"])
    def test_what_is_not_json_is_malformed(self, text: str) -> None:
        """400 and not 422: the transport is broken, not the record."""
        with pytest.raises(Rejected) as no:
            webhooks_of(EntityType.PRODUCT, text, Operation.UPSERT)
        assert no.value.status == 400

    def test_equal_content_is_equal_however_it_is_printed(self) -> None:
        """The order of keys, 12.5 for 12.50, display texts and keys that are not stored make no difference."""
        printed = {
            "rate_formatted": "Rs.12.50",
            "last_modified_time": ITEM["last_modified_time"],
            "some_new_key": 1,
            "name": "Mouse",
            "item_id": "17",
            "rate": "12.50",
        }
        assert one(printed).content == one(ITEM).content
        assert one(ITEM | {"rate": 12.5}).content == one(ITEM | {"rate": 12.50}).content

    @pytest.mark.parametrize(
        ("one_way", "other_way"),
        [
            ('"rate": 12.5', '"rate": 12.50'),
            ('"rate": 100', '"rate": 1E2'),
            ('"rate": 100', '"rate": 100.0'),
            ('"rate": 0', '"rate": -0.0'),
            ('"rate": 1e-7', '"rate": 0.00000010'),
            (
                '"package_details": {"weight": 1.0}',
                '"package_details": {"weight": 1, "weight_formatted": "1 kg"}',
            ),
            ('"name": "a", "sku": "b"', '"sku": "b", "name": "\\u0061"'),
        ],
    )
    def test_one_value_in_two_prints_is_one_content(self, one_way: str, other_way: str) -> None:
        """Two deliveries of one version differ in how they are written, also inside of lists and objects."""
        texts = [f'{{"item": {{"item_id": "17", {way}}}}}' for way in (one_way, other_way)]
        contents = {webhooks_of(EntityType.PRODUCT, text, Operation.UPSERT)[0].content for text in texts}
        assert len(contents) == 1

    @pytest.mark.parametrize(
        ("one_way", "other_way"),
        [
            ('"rate": 1', '"rate": "1"'),
            ('"rate": 1', '"rate": true'),
            ('"rate": 0.' + "1" * 40, '"rate": 0.' + "1" * 39 + "2"),
            ('"rate": ' + "9" * 60, '"rate": ' + "9" * 59 + "8"),
            ('"name": null', '"name": ""'),
        ],
    )
    def test_values_that_differ_are_two_contents(self, one_way: str, other_way: str) -> None:
        """To the last digit, and also where the type alone differs."""
        texts = [f'{{"item": {{"item_id": "17", {way}}}}}' for way in (one_way, other_way)]
        contents = {webhooks_of(EntityType.PRODUCT, text, Operation.UPSERT)[0].content for text in texts}
        assert len(contents) == 2

    @pytest.mark.parametrize(
        "change",
        [{"rate": "12.51"}, {"name": ""}, {"last_modified_time": "2025-11-04T15:20:12+0300"}, {"sku": "x"}],
    )
    def test_a_real_change_is_other_content(self, change: dict[str, str]) -> None:
        """Also one second later, and also where nothing but a blank differs."""
        assert one(ITEM | change).content != one(ITEM).content

    def test_a_delete_is_other_content_and_created_is_not(self) -> None:
        """The body of a delete is the last record; rules for created and edited fire with one body."""
        assert one(ITEM, Operation.DELETE).content != one(ITEM).content
        assert one(ITEM, Operation.CREATE).content == one(ITEM, Operation.UPDATE).content

    def test_two_records_never_share_a_name(self) -> None:
        """Content belongs to one record of one kind."""
        (customer,) = webhooks_of(EntityType.CUSTOMER, '{"contact_id": "17"}', Operation.UPSERT)
        (vendor,) = webhooks_of(EntityType.VENDOR, '{"contact_id": "17"}', Operation.UPSERT)
        assert customer.content != vendor.content

    @pytest.mark.parametrize(
        "file", sorted(TRANSPORT.parent.glob("[a-z]*/*.json")), ids=lambda f: f"{f.parent.name}/{f.stem}"
    )
    def test_every_example_unwraps_again(self, file: Path) -> None:
        """What would be queued is one record, with the id that the event is about, to the last digit."""
        entity = kind_of(file.parent.name)
        text = file.read_text(encoding="utf-8")
        try:
            found = webhooks_of(entity, text, Operation.UPSERT)
        except Rejected:
            with pytest.raises(document.Refusal):
                unwrap(entity, text)
            return
        before = unwrap(entity, text)
        for webhook, record in zip(found, before, strict=True):
            (again,) = unwrap(entity, webhook.payload)
            assert again.data == record.data
            assert source_key(entity, again.data) == webhook.key


class TestLimits:
    def test_a_source_that_floods_waits_and_others_do_not(self) -> None:
        """One bucket for each source; it fills with time."""
        limit = rate.RateLimit(60)
        taken = [limit.wait_seconds("a", now=0.0) for _ in range(12)]
        assert taken[:10] == [0] * 10
        assert all(seconds > 0 for seconds in taken[10:])
        assert limit.wait_seconds("b", now=0.0) == 0
        assert limit.wait_seconds("a", now=1.5) == 0

    def test_sources_are_forgotten(self) -> None:
        """A client with endless addresses cannot exhaust the memory."""
        limit = rate.RateLimit(60)
        for number in range(20_000):
            limit.wait_seconds(str(number), now=float(number))
        assert len(limit._buckets) <= 10_000

    def test_a_network_of_ipv6_is_one_source(self) -> None:
        """Another address of the same network does not give another bucket."""
        assert (
            rate.source_of("2001:db8::1") == rate.source_of("2001:db8::ffff") != rate.source_of("2001:db9::1")
        )

    @pytest.mark.parametrize("host", [None, "", "unix:", "x" * 100, "1.2.3.4, 5.6.7.8"])
    def test_what_is_no_address_is_not_kept(self, host: str | None) -> None:
        """Behind a proxy a caller writes it, and the column takes 45 characters."""
        assert rate.address_of(host) is None

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
    def test_without_a_secret_only_this_machine_may_call(self, host: str) -> None:
        """Failing closed: an open address needs a signature."""
        from handlers.errors import Refused

        with pytest.raises(Refused):
            check(None, host)
        assert not is_loopback(host)
