"""What healing cannot mend: backlog, age, stuck events, workers. People are told once, and again when it is over."""

from __future__ import annotations

from collections.abc import Iterable

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.environment.notification import Severity
from handlers.measurements import everything
from handlers.measurements.measurement import Measurement, State
from handlers.phases.heal_blocks import lives_a_worker
from handlers.release.ledger import outbox
from handlers.release.topic import Topic

ALARMS = ("queue_depth", "oldest", "stuck", "silent_workers")
"""The checks that are alarms between the releases; their bars are those of [bars]."""


async def measure(core: Core) -> list[Measurement]:
    """The alarms as they stand now. Raises DatabaseDown."""
    return [each for each in await everything.of_queue(core, None) if each.name in ALARMS]


def wrong(measured: Iterable[Measurement]) -> list[Measurement]:
    """The alarms that are broken, or could not be read."""
    return [each for each in measured if each.state in (State.BROKEN, State.SOURCE_DOWN)]


async def tell(core: Core, measured: Iterable[Measurement]) -> None:
    """Tell people of each alarm that is new, and of each that is over. Raises DatabaseDown."""
    async with transaction(core.database) as tx:
        nobody = await lives_a_worker(tx) is False
    for each in measured:
        name, key = core.environment.name, each.key
        if each.state is State.BROKEN:
            severity = Severity.PAGE if each.name == "silent_workers" and nobody else None
            sentence = f"{key}: {each.sentence}"
            await outbox.write(
                core.database, name, Topic.CHECK_BROKEN, sentence, subject=key, severity=severity, once=True
            )
        elif each.state is State.SOURCE_DOWN:
            sentence = f"{key}: {each.sentence}"
            await outbox.write(core.database, name, Topic.SOURCE_DOWN, sentence, subject=key, once=True)
        elif each.state is not State.NO_DATA:
            whole = f"{key} keeps its bar again: {each.sentence}"
            await outbox.write(core.database, name, Topic.CHECK_WHOLE, whole, subject=key)
            await outbox.write(
                core.database, name, Topic.SOURCE_BACK, f"{key} can be read again", subject=key
            )
