"""Who may start something in a freeze: a person whom it names, with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.environment.freezes import Action, Freeze
from handlers.environment.people import Role
from handlers.release.freeze import not_overridden, rule
from handlers.release.override import OverrideRequest, Ruling

NOW = datetime(2025, 11, 15, 12, tzinfo=UTC)
"""A Saturday."""
ROLES = (Role(name="lead", people=("Ada L", "ops-b")),)


def freeze(**keys: Any) -> Freeze:
    """A weekend that Ada's role may override."""
    weekend = {"reason": "the weekend", "days": ["fri"], "begins": "16:00", "ends": "mon 08:00"}
    return Freeze.model_validate({**weekend, "override_roles": ["lead"], **keys})


def ruled(person: str = "", reason: str = "a fix", *known: Freeze, now: datetime = NOW) -> Ruling:
    """What is said to this person; to nobody in particular without one."""
    request = OverrideRequest(person=person, reason=reason) if person else None
    found = rule(known or (freeze(),), ROLES, Action.RELEASE, now, lasts_seconds=3600, request=request)
    assert found is not None
    return found


def test_a_freeze_refuses_with_its_end_and_what_to_type() -> None:
    """When it ends is what a refused person wants to know."""
    found = ruled()
    assert not found.good
    assert found.sentence == (
        "a freeze is active until Mon 2025-11-17 08:00 UTC: the weekend. "
        "A person whom it names may add --override-freeze --reason REASON"
    )


@pytest.mark.parametrize(("person", "right"), [("ada  l", "role lead"), ("ops-b", "role lead")])
def test_a_person_of_the_role_may_start_it(person: str, right: str) -> None:
    """The ledger gets the person, the right and the reason; the plan a warning."""
    found = ruled(person)
    assert (found.good, found.warns) == (True, True)
    [override] = found.overrides
    assert (override.person, override.by_right, override.reason) == (person, right, "a fix")
    assert found.sentence.endswith(f'{person} ({right}) starts it all the same: "a fix"')


def test_another_person_may_not_and_hears_who_may() -> None:
    """Also nobody in particular."""
    for person in ("ops-c", "root"):
        found = ruled(person)
        assert (found.good, found.overrides) == (False, ())
        assert found.sentence.endswith(f"{person} may not override it: ask Ada L, ops-b")


def test_where_it_names_nobody_nobody_may() -> None:
    """A freeze without people is closed to all."""
    found = ruled("ops-b", "a fix", freeze(override_roles=[]))
    assert (found.good, found.sentence.endswith("ops-b may not override it: nobody may")) == (False, True)


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_override_has_a_reason(reason: str) -> None:
    """Without one it is refused."""
    found = ruled("ops-b", reason)
    assert (found.good, "give a reason: --reason" in found.sentence) == (False, True)


def test_of_two_freezes_both_must_be_open_to_the_person() -> None:
    """The right for one is no right for the other."""
    closed = freeze(reason="the books", override_roles=[], override_people=["cfo"])
    found = ruled("ops-b", "a fix", freeze(), closed)
    assert not found.good
    assert "the books; ops-b may not override it: ask cfo" in found.sentence


def test_what_comes_is_told() -> None:
    """A freeze that begins before the end is a warning: what runs then goes on."""
    friday = datetime(2025, 11, 14, 15, 30, tzinfo=UTC)
    found = ruled(now=friday)
    assert (found.good, found.warns) == (True, True)
    assert "one begins before this ends, at Fri 2025-11-14 16:00 UTC" in found.sentence
    early = ruled(now=datetime(2025, 11, 13, tzinfo=UTC))
    assert (early.good, early.warns) == (True, False)
    assert early.sentence == "none is active, the next one begins Fri 2025-11-14 16:00 UTC (the weekend)"


def test_without_a_freeze_of_this_kind_nothing_is_said() -> None:
    """An environment without freezes has no check of them."""
    assert rule((), ROLES, Action.RELEASE, NOW, lasts_seconds=1) is None
    assert rule((freeze(),), ROLES, Action.CANARY, NOW, lasts_seconds=1) is None


def test_an_override_is_for_the_freeze_that_was_told() -> None:
    """One that was added or changed since is not overridden."""
    told = [override.what for override in ruled("ops-b").overrides]
    assert not_overridden([freeze()], Action.RELEASE, NOW, told) == ()
    [other] = not_overridden([freeze(), freeze(reason="the books")], Action.RELEASE, NOW, told)
    assert other.freeze.reason == "the books"
    assert not_overridden([freeze(ends="tue 08:00")], Action.RELEASE, NOW, told)
