"""The tables after a sync alone are those after webhooks alone, for all eleven types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handlers.entities.document import dump, load
from handlers.errors import ExitCode
from handlers.queue.event import DRAIN_ORDER, EntityType
from handlers.zoho.runs import Kind
from rehearsal.postgres import Postgres
from rehearsal.zoho.modules import MODULES, detail_of
from rehearsal.zoho.same_tables import contents, differences
from tests.conftest import engine_for
from tests.integration.entities.events import example_records, parents_of
from tests.integration.zoho.sources import P, Place, place

CHANGED = "2025-11-05T10:00:00+0300"


def records() -> dict[EntityType, dict[str, dict[str, Any]]]:
    """Every example payload, once for each id, with the records that they refer to."""
    found: dict[EntityType, dict[str, dict[str, Any]]] = {entity: {} for entity in EntityType}
    parents: dict[EntityType, dict[str, dict[str, Any]]] = {entity: {} for entity in EntityType}
    for name, entity, record in example_records():
        if name == "payment/6.json" or entity is EntityType.USER:
            continue
        exact = json.loads(json.dumps(record))
        module = MODULES[entity]
        stamp = "updated_time" if entity is EntityType.PAYMENT else "last_modified_time"
        key = f"{exact[module.id_key]}"
        found[entity][key] = {**exact, module.id_key: key, stamp: exact.get(stamp) or CHANGED}
        for each in parents_of(entity, record):
            data = json.loads(each.payload)
            parents[each.entity][each.key] = {**data, "last_modified_time": CHANGED}
    for entity, missing in parents.items():
        found[entity] = {**missing, **found[entity]}
    return found


async def webhooks_only(here: Place) -> None:
    """What the source has as webhooks, in the order of their parents."""
    organisation = here.source.organisation
    for entity in DRAIN_ORDER:
        for key in organisation.keys(entity):
            record = {**organisation.get(entity, key)}
            body = detail_of(entity, record)
            if entity is EntityType.PRICE_LIST:
                body["last_modified_time"] = record["last_modified_time"]
            exact: Any = load(dump(body))
            await here.webhook(entity, exact)
    await here.work()


async def test_a_sync_leaves_the_tables_that_webhooks_leave(
    tmp_path: Path, database_url: str, postgres: Postgres, adopted_template: str
) -> None:
    """Row for row and line for line; a second sync of either finds nothing to do."""
    other_url = await postgres.create_database("by_webhooks", template=adopted_template)
    engine = engine_for(other_url)
    (tmp_path / "other").mkdir()
    try:
        async with place(tmp_path, database_url) as here, place(tmp_path / "other", other_url) as there:
            for entity, known in records().items():
                for record in known.values():
                    for each in (here, there):
                        each.source.organisation.put(entity, record)
            done = await here.sync_and_work(Kind.FULL)
            assert done.exit_code is ExitCode.GOOD, done.sentence
            await webhooks_only(there)
            assert [row.status for row in await here.events() if row.status != "completed"] == []
            synced, sent = await contents(here.core.database), await contents(engine)
            assert differences(synced, sent) == []
            assert len(synced["products"]) > 10
            assert synced["invoice_items"]
            for each in (here, there):
                again = await each.sync_and_work(Kind.FULL)
                assert (again.exit_code, [step for step in again.steps if step.queued]) == (ExitCode.GOOD, [])
            here.source.organisation.change(P, here.source.organisation.keys(P)[0], name="only here")
            await here.sync_and_work(Kind.INCREMENTAL)
            assert len(differences(await contents(here.core.database), sent)) == 1
    finally:
        await engine.dispose()
        await postgres.drop_database("by_webhooks")
