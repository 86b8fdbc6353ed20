"""A person chooses dead letters by id, type, error or number; what is left out is counted with its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handlers.queue.event import EntityType
from handlers.release.only import ALL, Only
from handlers.release.planned import Plan, PlannedEvent
from tests.integration.release.steps import plan_of


def event(number: int, entity: EntityType, code: str = "xd2s", text: str = "no # for ?") -> PlannedEvent:
    id_ = f"00000000-0000-0000-0000-{number:012}"
    return PlannedEvent(id=id_, entity=entity, key=str(number), error_code=code, fingerprint=text)


EVENTS = (
    event(1, EntityType.PRODUCT),
    event(2, EntityType.PRODUCT, code="missing_parent"),
    event(3, EntityType.INVOICE, text="Greenlet_spawn has not been called"),
    event(4, EntityType.INVOICE),
)


@pytest.mark.parametrize(
    ("only", "keys"),
    [
        (ALL, "1234"),
        (Only(event=EVENTS[2].id), "3"),
        (Only(entity="Product"), "12"),
        (Only(error="GREENLET"), "3"),
        (Only(error="missing_"), "2"),
        (Only(entity="Invoice", error="no #"), "4"),
        (Only(limit=3), "123"),
        (Only(entity="Invoice", limit=1), "3"),
        (Only(entity="Bill"), ""),
    ],
)
def test_only_what_is_asked_for_is_chosen_in_the_order_of_the_drain(only: Only, keys: str) -> None:
    chosen, others = only.choose(EVENTS)
    assert "".join(each.key for each in chosen) == keys
    assert sum(others.values()) == len(EVENTS) - len(chosen)


def test_what_is_left_out_says_why() -> None:
    _, others = Only(entity="Invoice", limit=1).choose(EVENTS)
    assert others == {"not asked for (--entity Invoice --limit 1)": 2, "more than --limit 1": 1}


def test_the_choice_is_kept_with_the_plan() -> None:
    """A plan that waits is made again with it before it starts."""
    plan = replace(plan_of(), only=Only(entity="Product", limit=2))
    assert Plan.from_json(plan.as_json()).only == plan.only
    assert "only" not in plan_of().as_json()
    assert Plan.from_json(plan_of().as_json()).only == ALL
