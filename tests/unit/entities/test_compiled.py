"""The compiled reader and the generic one: equal values, parents and refusals for every record."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest

from handlers.entities import registry
from handlers.entities.document import Refusal
from handlers.entities.envelope import records
from handlers.entities.read import COMPILED_FROM, ReadPlan, ReadResult, read, read_plans
from handlers.entities.spec import Column, Data, MergedRecord
from handlers.queue.event import EntityType

EXAMPLES = Path(__file__).parents[2] / "payloads"
ODD: list[object] = [
    None, "", " ", "x", " x ", True, False, 0, 7, -3, 2**31, 10**29, 10**30, -(10**30), Decimal("1.50"), Decimal("-0"),
    Decimal("1E+31"), Decimal("1E-31"), "1.25E7", "12.5 %", "1e5", "123", "12٣", "9" * 101, [], {}, [{"a": 1}],
    {"a": 1},
    "2025-11-04T15:20:11+0300", "2025-11-04T15:20:11+1500", "2025-11-04T15:20:11+0260", "2025-11-04T15:20:61+0300",
    "0001-01-01T00:00:00+0300", "9999-12-31T23:00:00-0300", "2025-W01-1T00:00:00+0300", "2025-11-04", "true",
    "active", "3000-01-01T00:00:00+0000",
]  # fmt: skip


def examples(entity: EntityType) -> list[Data]:
    """The example records of a type; every published form is among them."""
    found = []
    for path in sorted((EXAMPLES / entity.value.lower()).glob("*.json")):
        try:
            found += [
                record.data for record in records(registry.handler(entity), path.read_text(encoding="utf-8"))
            ]
        except Refusal:
            continue
    return found


def both(columns: tuple[Column, ...], record: Data, path: str) -> tuple[object, object]:
    """What the generic and the compiled reader make of a record."""
    compiled, generic = (read_plans(columns)(tuple(record)) for _ in range(2))
    for _ in range(COMPILED_FROM):
        compiled.note_use()
    generic.used = COMPILED_FROM + 1
    assert compiled.compiled is not None
    return outcome(generic, record, path), outcome(compiled, record, path)


def outcome(plan: ReadPlan, record: Data, path: str) -> object:
    """Values and parents, or the refusals."""
    result = ReadResult()
    values = read(plan, record, path, result)
    return [str(refusal) for refusal in result.refusals] or (values, list(result.parents.values()))


@pytest.mark.parametrize("entity", sorted(EntityType))
def test_both_readers_agree_on_every_example_and_on_odd_values(entity: EntityType) -> None:
    """Each key gets each odd value, one after the other, and some records get several."""
    chance = random.Random(11)
    table = registry.handler(entity).table
    seen = examples(entity)
    assert seen
    shapes = {tuple(record): record for record in seen}
    for record in shapes.values():
        generic, compiled = both(table.columns, record, "")
        assert compiled == generic
        for _ in range(60):
            changed = dict(record)
            for key in chance.sample(list(record), k=min(len(record), chance.choice([1, 1, 2, 5]))):
                changed[key] = chance.choice(ODD)
            generic, compiled = both(table.columns, changed, "lines[3].")
            assert compiled == generic, changed


def test_every_odd_value_in_every_column_is_read_alike() -> None:
    """All columns of all types, with every odd value under their first key."""
    for entity in EntityType:
        for column in registry.handler(entity).table.columns:
            for value in ODD if column.keys else ():
                generic, compiled = both((column,), {column.keys[0]: value}, "")
                assert compiled == generic, (entity, column.name, value)


def test_a_merged_record_is_not_read_by_the_compiled_reader() -> None:
    """Its keys have versions: the newer of two keys counts, even if it is blank."""
    columns = registry.handler(EntityType.PRODUCT).table.columns
    record = MergedRecord({"item_id": "1", "name": "old", "item_name": ""}, {"name": 1})
    generic, compiled = both(columns, record, "")
    assert compiled == generic
    plain, _ = both(columns, dict(record), "")
    assert plain != generic
