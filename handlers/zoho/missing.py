"""What no list of the source has: each such record is asked for by its id, and deleted only if it does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from handlers.database.transaction import transaction
from handlers.entities import known
from handlers.zoho import progress
from handlers.zoho.pages import ListRow
from handlers.zoho.progress import Stage, Step
from handlers.zoho.reader import Batch, Wanted, deletion
from handlers.zoho.stale import Need
from handlers.zoho.work import CHUNK, Work

_DELETES_FREE = 5
"""So many missing records are no sign of a list that is broken."""
_KEYS_AT_ONCE = 1000


async def may_remove(work: Work, now: Step) -> Step:
    """Go on to the deletes, unless so much is missing that the list is more likely to be wrong."""
    total = missing = 0
    after = ""
    while keys := await _keys(work, after):
        total += len(keys)
        missing += len(await _unseen(work, keys))
        after = keys[-1]
    percent = 100 * missing / total if total else 0.0
    limit = work.settings.deletes_percent_max
    if missing > _DELETES_FREE and percent > limit and not work.run.deletes_all:
        sentence = (
            f"the source does not list {missing} of {total} {work.entity} records ({percent:.0f} %, more than "
            f"{limit:g} %): none was deleted. If they are gone: "
            f"`runbook sync full --entity {work.entity} --allow-deletes`"
        )
        now = replace(now, stage=Stage.DONE, sentence=sentence)
        return await work.write(now, Batch(), [], [])
    return now


async def remove_some(work: Work, now: Step) -> Step:
    """Look a second time at records that no list has, by their ids, and delete what does not exist."""
    keys = await _keys(work, now.after_key)
    if not keys:
        return await work.write(replace(now, stage=Stage.DONE), Batch(), [], [])
    unseen = await _unseen(work, keys)
    some = unseen[:CHUNK]
    last = some[-1] if len(unseen) > CHUNK else keys[-1]
    async with transaction(work.database) as tx:
        stored = await known.known(tx, work.entity, some)
    wanted = [
        Wanted(row=ListRow(key=key, data={}, stamp=None), need=Need.DRIFTED, stored=stored.get(key))
        for key in some
    ]
    batch = await work.read(wanted)
    gone = [deletion(work.entity, row.key) for row in batch.gone]
    place = replace(now, after_key=last) if batch.stopped is None else now
    # What was found by its id only is not counted as listed, but it is there.
    return await work.write(place, batch, [*batch.records, *gone], batch.found, deleted=len(gone))


async def _keys(work: Work, after: str) -> list[str]:
    async with transaction(work.database) as tx:
        return await known.keys_after(tx, work.entity, after, _KEYS_AT_ONCE)


async def _unseen(work: Work, keys: Sequence[str]) -> list[str]:
    async with transaction(work.database) as tx:
        return await progress.unseen(tx, work.run, work.entity, keys)
