"""What people read: short, what happened first, and nothing of a payload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.environment.model import Environment
from handlers.notify.text import HEADLINES, WORDS_MAX, first_words, without_values, write_out
from handlers.release.ledger.outbox import Message
from handlers.release.topic import ENDS, RECOVERIES, Topic, severity_of

ENVIRONMENT = Environment.model_validate(
    {
        "name": "production",
        "database": {"url": "postgresql://h/d"},
        "ssh": {"user": "u", "agent": True, "known_hosts_file": "/k"},
        "hosts": [{"name": "web-1", "address": "a", "health_url": "http://a/"}],
        "deploy": {"directory": "/srv/erp"},
        "services": {},
        "reports": {"directory": "/reports"},
    }
)
MESSAGE = Message(
    id=1,
    environment="production",
    release_id="2025-11-14.3",
    topic=Topic.ROLLED_BACK,
    subject="",
    severity=severity_of(Topic.ROLLED_BACK),
    sentence="2 of 2 hosts are back",
    is_summary=False,
    from_revision="a" * 40,
    to_revision="b" * 40,
    requested_by="ops-a",
    more=0,
)


def test_a_message_says_what_what_next_which_release_and_where_the_report_is() -> None:
    """In this order, one line for each."""
    text = write_out(MESSAGE, ENVIRONMENT)
    assert text.title == "[production] release 2025-11-14.3"
    assert text.body.splitlines() == [
        "Rolled back: 2 of 2 hosts are back",
        "Next: runbook explain -e production",
        "Release 2025-11-14.3, production, aaaaaaa to bbbbbbb",
        "Report: /reports/production/2025-11-14.3/report.html",
    ]


@pytest.mark.parametrize("topic", Topic)
def test_every_topic_has_words_and_a_next_step(topic: Topic) -> None:
    """None is forgotten, and none keeps a placeholder."""
    body = write_out(replace(MESSAGE, topic=topic), ENVIRONMENT).body
    assert body.startswith(f"{HEADLINES[topic]}: ")
    assert "Next: runbook " in body
    assert "{" not in body


def test_every_recovery_ends_a_trouble() -> None:
    """And is as urgent as what it ends, so that the same people hear of it."""
    for topic in RECOVERIES:
        assert {severity_of(trouble) for trouble in ENDS[topic]} == {severity_of(topic)}


def test_the_first_sentence_is_no_longer_than_people_read() -> None:
    """A traceback of ten lines becomes one line."""
    words = first_words("a b\n" * 40)
    assert len(words.split()) == WORDS_MAX + 1
    assert words.endswith("…")
    assert "\n" not in words


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("duplicate key: Key (sku)=(ABC-1) exists", "duplicate key: Key (sku)=(…) exists"),
        ('invalid input for numeric: "12,5 SAR"', 'invalid input for numeric: "…"'),
        ("could not convert to float: 'Acme'", "could not convert to float: '…'"),
        ("customer buyer@example.com is unknown", "customer … is unknown"),
        ("Product 2646610000000114000 failed", "Product … failed"),
        ("93.1 % of 58 completed, the host's bar is 95", "93.1 % of 58 completed, the host's bar is 95"),
    ],
)
def test_no_value_of_a_payload_is_told(error: str, shown: str) -> None:
    """Numbers of ours stay; ids, quoted values and addresses of people do not."""
    assert without_values(error) == shown
