"""The checks of the queue while a release is watched: which bars are broken, for how long, and what they ask for.

The gate judges the release by its own events. These are the bars of [bars], shown and paged; those that the environment
names hold the release, or roll it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from handlers.core import Core
from handlers.measurements import everything
from handlers.measurements.measurement import Action, Measurement, State, source_down
from handlers.phases.around_state import AroundState, Broken
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release

SECONDS = 4.0
"""How long the checks of one look may take. Real seconds."""
PAUSE_SECONDS = 5.0
"""The shortest pause between two looks: a rehearsal's database is no faster than others. Real seconds."""
LOOKS_MIN = 2
"""A bar counts as broken when so many looks in a row say so: one peak is nothing."""
SOURCE = "checks"


async def measure(core: Core, release: Release, state: AroundState, at: datetime) -> list[Measurement] | None:
    """The checks of queue and workers, where they are due; None where they are not.

    Before the watch they tell little: workers are stopped for the deploy, and letters are drained. Raises DatabaseDown.
    """
    pause = max(core.clock.real(core.environment.watch.interval_seconds), timedelta(seconds=PAUSE_SECONDS))
    if state.checked_at is not None and timedelta() <= at - state.checked_at < pause:
        return None
    if (await releases.get(core.database, release.id)).phase is not Phase.WATCHING:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            return await everything.of_queue(core, release)
    except TimeoutError:
        return [source_down(name, f"not within {SECONDS:g} s") for name in everything.QUEUE_CHECKS]


def problems(measured: Iterable[Measurement]) -> dict[str, str]:
    """Why the checks could not be read; all of them come from one source."""
    why = [each.sentence for each in measured if each.state is State.SOURCE_DOWN]
    return {SOURCE: why[0]} if why else {}


def broken(before: Mapping[str, Broken], measured: Iterable[Measurement]) -> dict[str, Broken]:
    """The broken bars after a look, each with how many looks in a row it has been."""
    found: dict[str, Broken] = {}
    for each in measured:
        sentence = f"{each.name}: {each.sentence}"
        same = f"{each.name.removesuffix('_24h')}_1h"
        # Until a day after the deploy both windows may be the same: one page is enough.
        if same in found and each.action is Action.SHOW and found[same].sentence.endswith(each.sentence):
            continue
        if each.state is State.BROKEN:
            found[each.key] = again(before.get(each.key), sentence, each.action)
        elif each.state is State.SOURCE_DOWN and each.key in before:
            # Not knowing ends no breach, and makes none longer.
            found[each.key] = before[each.key]
    return found


def again(before: Broken | None, sentence: str, action: Action) -> Broken:
    """A bar that is broken now, and may have been at the look before."""
    if before is None:
        return Broken(sentence=sentence, action=action)
    return replace(before, sentence=sentence, action=action, looks=min(before.looks + 1, LOOKS_MIN))


def is_of_a_check(key: str) -> bool:
    """Whether a broken bar is one of the checks here; those of the machines name host and reading."""
    return " " not in key
