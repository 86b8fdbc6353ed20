"""What people may write after --fault, and what chance draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handlers.errors import Refused
from handlers.release.phase import LIVE, Phase
from rehearsal.faults.fault import KINDS, MOMENTS, Fault, Kind, Moment, draw, parse
from rehearsal.faults.inject import BREAKERS
from rehearsal.faults.moments import Reached, _reached

HOSTS = ("web-1", "web-2")
PAGE = Path(__file__).parents[3] / "docs" / "faults.md"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "database-away@activate:20",
            Fault(kind=Kind.DATABASE_AWAY, moment=Moment(name="activate"), seconds=20),
        ),
        ("database-away@drain", Fault(kind=Kind.DATABASE_AWAY, moment=Moment(name="draining"), seconds=5)),
        (
            "host-away@watch+2.5/web-1:7",
            Fault(
                kind=Kind.HOST_AWAY,
                moment=Moment(name="watching", host="web-1", delay_seconds=2.5),
                seconds=7,
            ),
        ),
        ("cancelled@rollback", Fault(kind=Kind.CANCELLED, moment=Moment(name="rolling_back"), seconds=None)),
        (
            "database-away@back-activate/web-2:360",
            Fault(kind=Kind.DATABASE_AWAY, moment=Moment(name="back-activate", host="web-2"), seconds=360),
        ),
        (
            "noisy-shell@deploying",
            Fault(kind=Kind.NOISY_SHELL, moment=Moment(name="deploying"), seconds=None),
        ),
    ],
)
def test_a_fault_is_read_as_it_is_written(text: str, fault: Fault) -> None:
    """Kind, moment, delay, host and seconds; defaults where they are left out; the short words of phases."""
    assert parse(text, HOSTS) == fault


@pytest.mark.parametrize("kind", Kind)
def test_a_fault_that_is_printed_can_be_read_again(kind: Kind) -> None:
    """The text output names each fault so that it can be repeated."""
    for fault in draw(20, 3, HOSTS, goes_back=True, without=set(Kind) - {kind}):
        assert parse(str(fault), HOSTS) == fault


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("", ["has no moment", "KIND@MOMENT"]),
        ("database-away", ["has no moment", "KIND@MOMENT"]),
        ("@draining", ["'' is no kind of fault", "database-away"]),
        ("databse-away@draining", ["did you mean database-away", "noisy-shell"]),
        ("database-away@", ["'' is no moment", "back-start-workers"]),
        ("database-away@dranining", ["did you mean draining"]),
        ("database-away@succeeded", ["'succeeded' is no moment"]),
        ("database-away@draining:", ["the seconds must be a number from 0 to 3600, not ''"]),
        ("database-away@draining:soon", ["must be a number", "'soon'"]),
        ("database-away@draining:-1", ["must be a number from 0"]),
        ("database-away@draining:nan", ["must be a number"]),
        ("database-away@draining:inf", ["must be a number"]),
        ("database-away@draining:1e9", ["must be a number from 0 to 3600"]),
        ("database-away@draining+x:3", ["the delay must be a number"]),
        ("host-away@draining/web-3", ["there is no host 'web-3'", "web-1, web-2"]),
        ("database-away@draining/web-1", ["strikes no host"]),
        ("cancelled@draining:5", ["takes no seconds"]),
    ],
)
def test_a_bad_fault_is_refused_in_one_sentence(text: str, needles: list[str]) -> None:
    """It names what was written, what is wrong with it, and the words that are allowed there."""
    with pytest.raises(Refused) as refused:
        parse(text, HOSTS)
    for needle in (repr(text), *needles):
        assert needle in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_kind_can_be_injected_and_is_documented() -> None:
    """Each has its injector, its sentence for the list, and its row in the page."""
    assert set(BREAKERS) == set(KINDS) == set(Kind)
    assert re.findall(r"^\| `([a-z-]+)` ", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == list(Kind)


def test_every_live_phase_is_a_moment() -> None:
    """A fault can strike wherever a controller works, in both directions."""
    assert set(MOMENTS) >= LIVE - {Phase.HELD}


def test_the_same_seed_draws_the_same_faults() -> None:
    """A run that went wrong can be repeated; without a way back there are no moments of one."""
    assert draw(10, 7, HOSTS, goes_back=True) == draw(10, 7, HOSTS, goes_back=True)
    assert draw(10, 7, HOSTS, goes_back=True) != draw(10, 8, HOSTS, goes_back=True)
    forward = draw(300, 7, HOSTS, goes_back=False, without={Kind.CLOCK_JUMP})
    assert {fault.moment.name for fault in forward} == {
        name for name in MOMENTS if not name.startswith("back-") and name != "rolling_back"
    }
    assert {fault.kind for fault in forward} == set(Kind) - {Kind.CLOCK_JUMP}


@pytest.mark.parametrize(
    ("moment", "reached"),
    [
        (Moment(name="deploying"), Reached(host=None)),
        (Moment(name="deploying", host="web-2"), Reached(host="web-2")),
        (Moment(name="probing"), None),
        (Moment(name="activate"), Reached(host="web-1")),
        (Moment(name="activate", host="web-1"), Reached(host="web-1")),
        (Moment(name="activate", host="web-2"), None),
    ],
)
def test_a_moment_comes_with_its_phase_or_with_the_operation_of_its_host(
    moment: Moment, reached: Reached | None
) -> None:
    """An operation without a host is the first one; with a host, that host's."""
    operations = [("prepare", "web-2"), ("prepare", "web-1"), ("activate", "web-1")]
    assert _reached(moment, {"planned", "deploying"}, operations) == reached
