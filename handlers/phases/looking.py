"""Looking at the live traffic of a release: its looker as the ledger left it, and the looks beside a phase."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from handlers.core import Core
from handlers.database import clock
from handlers.database.clock import Moment
from handlers.database.transaction import transaction
from handlers.gate.day_before import DayBefore
from handlers.gate.sequential import Gate
from handlers.gate.values import Finding
from handlers.phases import starting
from handlers.phases.facts import Facts, Timeline
from handlers.phases.looker import RULE, Looker
from handlers.phases.measure import concluded
from handlers.phases.numbers import parameters
from handlers.phases.switch import switched_at
from handlers.queue import throttle
from handlers.queue.changes import letters_of_before
from handlers.queue.event import EntityType
from handlers.release.ledger import dead_letters, heals, intents, records, releases
from handlers.release.ledger.guards import Claim
from handlers.release.ledger.records import JudgementRecord
from handlers.release.note import PhaseNote
from handlers.release.phase import Conclusion, Release


async def begin(core: Core, release: Release, *, claim: Claim | None = None) -> Looker:
    """The looker of a release. It goes on from what is stored of earlier looks."""
    plan = await releases.plan(core.database, release.id)
    stored = await records.judgements(core.database, release)
    looks = [each for each in stored if each.inputs.get("rule") == RULE]
    phases = await releases.phase_records(core.database, release)
    begun, switched = switched_at(phases, await intents.operations(core.database, release))
    moment = await clock.moment(core.database)
    timeline = Timeline(switched_at=switched or moment.database, speed=release.speed)
    before, numbers = plan.day_before or DayBefore(), parameters(core.environment, release.speed)
    types = [str(entity) for entity in EntityType]
    deploys = release.from_revision != release.to_revision
    gate = Gate(types, before, numbers, slow_start=deploys and not looks)
    facts = Facts(
        timeline=timeline,
        begun=timeline.at(begun or moment.database),
        revision=release.to_revision,
        replays=await _replays(core, release, begun or moment.database),
        instant_errors=core.environment.gate.instant_errors,
        queue_counts=core.environment.execution == "workers",
    )
    looker = Looker(
        gate,
        facts,
        moment if not looks else _moment_of(looks[-1], moment),
        begin=None if looks else {"types": types, "before": before.as_json(), "parameters": asdict(numbers)},
        name=throttle.gate_of(release.id),
        claim=claim,
    )
    ended = timeline.at(release.finished_at) if release.finished_at is not None else None
    looker.resume(looks, timeline.at(moment.database), ended=ended)
    if deploys:
        told = {fact["ev"] for each in looks for fact in each.inputs.get("facts", ())} if looks else None
        looker.tell(starting.facts_of(phases, timeline, core.environment.probe.limit_seconds, told=told))
    return looker


async def until_breach(core: Core, release: Release, looker: Looker) -> Conclusion | None:
    """Look every ten runbook seconds beside a phase, until the gate finds a breach; None when it was stopped."""
    while not looker.stopped.is_set():
        judgement = await looker.look(core, release, left=looker.gate.parameters.watch_s)
        if judgement.finding is Finding.UNHEALTHY:
            return concluded(judgement, PhaseNote(finding=judgement.finding))
        with contextlib.suppress(TimeoutError):
            pause = core.clock.real(looker.gate.parameters.tick_s).total_seconds()
            await asyncio.wait_for(looker.stopped.wait(), pause)
    return None


async def _replays(core: Core, release: Release, begun: datetime) -> set[UUID]:
    """What is no live traffic when it is applied again: the letters of the release, and those that a person may send.

    They are the dead letters of before the release, whoever sends them back, and what healing sends back.
    """
    async with transaction(core.database) as tx:
        older = await letters_of_before(tx, begun) | set(await heals.replays(tx, begun))
    return older | {each.event_id for each in await dead_letters.events(core.database, release)}


def _moment_of(look: JudgementRecord, moment: Moment) -> Moment:
    """The moment of a stored look. The time since then is not measured, so the database's clock tells it."""
    gone = (moment.database - look.taken_at).total_seconds()
    return Moment(monotonic=moment.monotonic - gone, database=look.taken_at)
