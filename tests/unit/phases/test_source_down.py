"""A source that is down: paged at its deadline, once, and forgotten as soon as it can be read again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handlers.phases.source_down import Down, after, due, to_page

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_nobody_is_paged_before_the_deadline_and_nobody_twice() -> None:
    """At the deadline itself a person is paged, with how long and why."""
    times = [
        to_page("web-1 tsh-erp", "gone", down_seconds=s, paged=False, limit_seconds=300) for s in (0, 299.9)
    ]
    assert times == [None, None]
    sentence = to_page("web-1 tsh-erp", "gone", down_seconds=300, paged=False, limit_seconds=300)
    assert sentence == "web-1 tsh-erp could not be read for 5 min: gone"
    assert to_page("web-1 tsh-erp", "gone", down_seconds=9000, paged=True, limit_seconds=300) is None


def test_a_source_keeps_its_beginning_until_it_is_read_again() -> None:
    """The newest reason counts, the first time stays; one good look ends it, and the next outage begins anew."""
    down = after({}, {"a": "gone", "b": "slow"}, AT)
    down = after(down, {"a": "refused"}, AT + timedelta(minutes=1))
    assert down == {"a": Down(since=AT, why="refused")}
    down, pages = due(down, AT + timedelta(minutes=5), limit_seconds=300, speed=1)
    assert pages == [("a", "a could not be read for 5 min: refused")]
    down = {source: Down.from_json(each.as_json()) for source, each in down.items()}
    assert due(down, AT + timedelta(hours=1), limit_seconds=300, speed=1) == (down, [])
    assert after(down, {}, AT + timedelta(hours=1)) == {}
    again = after({}, {"a": "gone"}, AT + timedelta(hours=2))
    assert due(again, AT + timedelta(hours=2, minutes=4), limit_seconds=300, speed=1)[1] == []


def test_the_deadline_passes_at_the_speed_of_the_rehearsal() -> None:
    """Five runbook minutes are five real seconds at 60 to 1. A clock that was set back pages nobody."""
    down = {"a": Down(since=AT, why="gone")}
    assert due(down, AT + timedelta(seconds=4.9), limit_seconds=300, speed=60)[1] == []
    assert len(due(down, AT + timedelta(seconds=5), limit_seconds=300, speed=60)[1]) == 1
    assert due(down, AT - timedelta(hours=1), limit_seconds=300, speed=60)[1] == []
