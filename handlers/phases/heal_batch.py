"""One batch of healing: sent back, followed until it has come to rest, and judged as a batch of a drain is.

Its letters and what they were before are in the ledger before a worker has them. A batch that is out when its run ends,
or is killed, is judged by the next run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.core import Core
from handlers.database.transaction import transaction
from handlers.gate.drain_rules import judge_drain
from handlers.gate.heal_rules import ALL, stopped_by
from handlers.gate.values import Finding
from handlers.phases import heal_blocks
from handlers.phases.follow import until_settled
from handlers.phases.heal_blocks import Block
from handlers.phases.heal_letters import limits_of, next_of, read_round
from handlers.queue import look
from handlers.queue.event import SETTLED, Status
from handlers.queue.look import EventState
from handlers.queue.redrive import BeforeRedrive, redrive, restore
from handlers.release.ledger import heal_stops, heals, outbox
from handlers.release.ledger.heals import Claim, HealEvent, Out, Sent, Settled
from handlers.release.topic import Topic

ASK_SECONDS = 2.0
"""So often a batch that is out is called back if a release has begun meanwhile."""
MARGIN_SECONDS = 0.1
"""The time of a batch is over by the database's clock, which is asked once more at the end."""
INLINE = "healing"
"""What stands for the revision where this process applies the events itself."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A batch that is over."""

    sentence: str
    completed: int
    tried: int
    untaken: int = 0
    """Letters that no worker has taken in all the time."""
    rests: tuple[tuple[str, str], ...] = ()
    """The types and errors that rest because of it."""


async def send(core: Core, claim: Claim) -> Out | None:
    """Send the next batch back. None when no letter may go back, or nothing may at all: then the round is over."""
    name = core.environment.name
    async with transaction(core.database) as tx:
        round_ = await heals.fence(tx, claim)
        # Again, in the transaction that sends: a release may have begun since the run did.
        if await heal_blocks.of_the_moment(tx, core) is not None:
            return None
        so_far = await read_round(tx, core, name, round_)
        chosen = await next_of(tx, core, so_far)
        formers = await redrive(tx, [UUID(each.id) for each in chosen.letters])
        if not formers:
            await _end_round(tx, claim, round_)
            return None
        fingerprints = {each.id: each.former for each in chosen.letters}
        records = so_far.progress.records
        letters = [
            Sent(
                entity=records[former.id][0],
                key=records[former.id][1],
                fingerprint=fingerprints[former.id],
                former=former,
            )
            for former in formers
        ]
        await heals.begin_batch(tx, claim, round_, letters)
    return await heals.out(core.database, name)


async def end_round(core: Core, claim: Claim) -> None:
    """No letter is left that may go back: the next batch begins with one letter of each type."""
    async with transaction(core.database) as tx:
        await _end_round(tx, claim, await heals.fence(tx, claim))


async def follow(core: Core, out: Out, deadline: float) -> Block | None:
    """Poll until the batch has come to rest, its time or that of the run (*deadline*, monotonic) is over.

    Returns what calls it back: a release that has begun, or a limit of the queue.
    """
    ids = await _ids(core, out)
    seconds = min(deadline - monotonic(), core.environment.heal.settle_seconds - out.seconds + MARGIN_SECONDS)
    ends = monotonic() + seconds
    poll = core.environment.drain.poll_seconds
    if core.environment.execution == "inline":
        await until_settled(core, ids, limit_seconds=max(seconds, 0), poll_seconds=poll, revision=INLINE)
    asked = 0.0
    while True:
        async with transaction(core.database) as tx:
            if monotonic() - asked >= ASK_SECONDS:
                asked = monotonic()
                if (block := await heal_blocks.of_the_moment(tx, core)) is not None:
                    return block
            states = await look.states(tx, ids)
        if monotonic() >= ends or all(state.status in SETTLED for state in states):
            return None
        await asyncio.sleep(poll)


async def judge(core: Core, claim: Claim, out: Out) -> Judged | None:
    """Judge a batch that has come to rest, or whose time is over; None where it is still out.

    What is unfinished then is put back as it was. What a worker has at this moment is waited for.
    """
    name, limits = core.environment.name, limits_of(core)
    async with transaction(core.database) as tx:
        await heals.fence(tx, claim)
        events = await heals.events(tx, name, action=out.id)
        states = await look.states(tx, [each.event_id for each in events])
        open_ = [state.id for state in states if state.status not in SETTLED]
        if open_ and out.seconds < core.environment.heal.settle_seconds:
            return None
        returned = await _put_back(tx, events, open_)
        settled = _settled(events, states, returned, counts=True)
        await heals.settle_events(tx, out.id, settled)
        if len(returned) < len(open_):
            # A worker has the rest in hand: what it makes of them belongs to this batch.
            return None
        so_far = await read_round(tx, core, name, out.round, states=states, judged=out.id)
        judgement = judge_drain(so_far.measurement, limits)
        rests = stopped_by(judgement.finding, so_far.measurement.groups, limits)
        await heals.end_batch(tx, out.id, finding=judgement.finding, sentence=judgement.sentence)
        done = {state.id for state in states if state.status is Status.COMPLETED}
        good = {(each.entity_type, each.fingerprint) for each in events if each.event_id in done}
        await heal_stops.forget(tx, name, good, by=claim.by)
        if rests:
            await _let_rest(tx, core, claim, rests, judgement.sentence)
            if judgement.finding is Finding.UNHEALTHY:
                await heals.end_round(tx, claim)
    return Judged(
        sentence=judgement.sentence,
        completed=len(done),
        tried=len(events),
        untaken=sum(each.status == heals.RETURNED and not each.counts for each in settled),
        rests=rests,
    )


async def call_back(core: Core, claim: Claim, out: Out, why: str) -> bool:
    """Put a batch back that may not be out any more, without judging it. False where a worker has a part of it."""
    name = core.environment.name
    async with transaction(core.database) as tx:
        await heals.fence(tx, claim)
        events = await heals.events(tx, name, action=out.id)
        states = await look.states(tx, [each.event_id for each in events])
        open_ = [state.id for state in states if state.status not in SETTLED]
        returned = await _put_back(tx, events, open_)
        await heals.settle_events(tx, out.id, _settled(events, states, returned, counts=False))
        if len(returned) < len(open_):
            return False
        sentence = f"not judged, what was open is put back: {why}"
        await heals.end_batch(tx, out.id, finding=Finding.NO_DATA, sentence=sentence)
        return True


async def _end_round(tx: AsyncConnection, claim: Claim, round_: int) -> None:
    if await heals.events(tx, claim.environment, round_=round_):
        await heals.end_round(tx, claim)


async def _ids(core: Core, out: Out) -> list[UUID]:
    async with transaction(core.database) as tx:
        return [each.event_id for each in await heals.events(tx, core.environment.name, action=out.id)]


async def _put_back(tx: AsyncConnection, events: Sequence[HealEvent], open_: Sequence[UUID]) -> set[UUID]:
    """Turn unfinished letters into the dead letters that they were; a letter that a worker has is left out."""
    wanted = set(open_)
    formers = [BeforeRedrive(**each.former) for each in events if each.event_id in wanted]
    return set(await restore(tx, formers))


def _settled(
    events: Sequence[HealEvent], states: Sequence[EventState], returned: set[UUID], *, counts: bool
) -> list[Settled]:
    """How the letters came to rest. One that is not in the queue any more is settled too: nothing is left to do.

    A letter that is put back counts as a try if *counts*, and a worker has tried it.
    """
    found = {state.id: state for state in states}
    settled = []
    for event in events:
        state = found.get(event.event_id)
        if state is None:
            settled.append(Settled(id=event.event_id, status="gone", counts=False))
        elif event.event_id in returned:
            tried = state.attempt_count > 0 or state.error_message is not None
            settled.append(
                Settled(
                    id=event.event_id,
                    status=heals.RETURNED,
                    error=state.error_message,
                    counts=counts and tried,
                )
            )
        elif state.status in SETTLED:
            settled.append(Settled(id=event.event_id, status=state.status, error=state.error_message))
    return settled


async def _let_rest(
    tx: AsyncConnection, core: Core, claim: Claim, rests: Sequence[tuple[str, str]], sentence: str
) -> None:
    """Stop the healing of these types and errors for a while, and tell people."""
    settings = core.environment.heal
    await heal_stops.rest(
        tx, claim.environment, rests, seconds=settings.pause_seconds, by=claim.by, reason=sentence
    )
    await outbox.write(
        tx, claim.environment, Topic.HEAL_STOPPED, f"healing leaves {named(rests)} alone: {sentence}"
    )


def named(rests: Sequence[tuple[str, str]]) -> str:
    """The types and errors that rest, for people."""
    return ", ".join(
        "all dead letters"
        if entity == ALL
        else f"all of {entity}"
        if former == ALL
        else f"{entity} ({former[:60] or 'no error text'})"
        for entity, former in rests
    )
