"""What is around a release: its upstream, new errors in the logs, the readings of hosts and database.

A look is bounded, and none of it passes a release or rolls one back. It is shown, paged, and may hold the release.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from handlers.core import Core
from handlers.database import clock
from handlers.errors import Refused
from handlers.host import machine, upstream
from handlers.host.log_state import LogState, NewSignature
from handlers.host.ssh import Shell, open_hosts
from handlers.host.upstream import UpstreamAnswer
from handlers.measurements import on_hosts, readings
from handlers.measurements.measurement import Action, action_of
from handlers.phases import around_checks, around_pages, source_down
from handlers.phases.around_pages import Page
from handlers.phases.around_state import AroundState, Broken, UpstreamChange
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.ledger import releases, requests
from handlers.release.note import PhaseNote
from handlers.release.phase import Phase, Release

log = logging.getLogger(__name__)

ASK_SECONDS = 4.0
"""How long one look waits for the upstream, also where upstream.answer_seconds is longer. Real seconds."""
AGAIN_SECONDS = 1.0
"""The pause before an upstream in doubt is asked again, where nobody else will soon. Real seconds."""
PAUSE_SECONDS = 5.0
"""The shortest pause between two looks at the hosts: a rehearsal's hosts are no faster than others. Real seconds."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What one look saw."""

    at: datetime
    """The database's time."""
    state: AroundState
    """For the next look. It is JSON-able, and `keep` stores it."""
    upstream: UpstreamAnswer | None = None
    """Whether the upstream is away: after upstream.failures failed answers. None where the environment has none."""
    changes: tuple[UpstreamChange, ...] = ()
    """The beginning or the end of an outage that this look found. A beginning lies a little before the look."""
    signatures: tuple[NewSignature, ...] = ()
    """The kinds of errors that are new in the logs since the look before."""
    breaches: tuple[str, ...] = ()
    """The bars of [machine] and [bars] that are broken."""
    problems: tuple[str, ...] = ()
    """The sources that could not be read."""
    holds: str = ""
    """Why the release should be held: newly broken bars that the environment says so of. Told once."""
    rolls_back: str = ""
    """The same of bars that roll a release back."""
    pages: tuple[Page, ...] = ()


async def begin(core: Core, release: Release) -> AroundState:
    """The state for the next look: as it was kept, or a new one. Raises DatabaseDown."""
    records = await releases.phase_records(core.database, release)
    kept = [record.note.around for record in records if record.note.around]
    if kept:
        try:
            return AroundState.from_json(kept[-1]["state"])
        except (KeyError, TypeError, ValueError) as error:
            # Another version's: what is around is looked at anew, and what it knows may be told once more.
            log.warning("what was seen around release %s cannot be read: %r", release.id, error)
    deploys = [record.started_at for record in records if record.phase is Phase.DEPLOYING]
    begun = [record.started_at for record in records if record.phase not in (Phase.PLANNED, Phase.APPROVED)]
    since = (deploys or begun or [await clock.now(core.database)])[0]
    return AroundState(logs=LogState(deployed_at=since))


async def look(
    core: Core, release: Release, state: AroundState, *, shells: Sequence[Shell] | None = None
) -> Surroundings:
    """Look around once, within five seconds; what does not answer by then is a problem, never good.

    The upstream is asked at its interval, and the hosts at most every five seconds. *shells* are connections to keep.
    Raises DatabaseDown.
    """
    at = await clock.now(core.database)
    before = state
    async with _shells(core, shells) as open_shells:
        asked, measured, checked = await asyncio.gather(
            _ask(core, state, at),
            readings.read(core, open_shells, state.logs, at) if _is_due(state, at) else _nothing(),
            around_checks.measure(core, release, state, at),
        )
    if asked is not None and core.environment.upstream is not None:
        state = state.answered(asked, core.environment.upstream.failures, at)
    new: list[NewSignature] = []
    problems = {source: each.why for source, each in state.down.items()}
    of_checks = {key: each for key, each in state.broken.items() if around_checks.is_of_a_check(key)}
    of_machines = {key: each for key, each in state.broken.items() if key not in of_checks}
    if measured is not None:
        new = measured.new
        sentences = machine.breaches(core.environment.machine, measured.hosts, measured.connections)
        problems = {key: why for key, why in problems.items() if key == around_checks.SOURCE}
        problems |= dict(map(_named, measured.problems))
        of_machines = _broken(core, of_machines, sentences)
        state = replace(
            state,
            logs=measured.logs or state.logs,
            hosts=tuple(measured.hosts),
            connections=measured.connections,
            measured_at=at,
        )
    if checked is not None:
        checked = [*checked, on_hosts.acting(core.environment, state.logs.seen)]
        problems.pop(around_checks.SOURCE, None)
        problems |= around_checks.problems(checked)
        of_checks = around_checks.broken(of_checks, checked)
        state = replace(state, checks=tuple(checked), checked_at=at)
    state = replace(
        state, down=source_down.after(state.down, problems, at), broken={**of_machines, **of_checks}
    )
    breaches = [broken.sentence for broken in state.broken.values()]
    limit = core.environment.watch.source_down_seconds
    down, due = source_down.due(state.down, at, limit_seconds=limit, speed=release.speed)
    told = {key: each for key, each in state.broken.items() if _is_new(each)}
    broken = {key: replace(each, told=each.told or key in told) for key, each in state.broken.items()}
    state = replace(state, down=down, broken=broken)
    changes = tuple(change for change in state.changes if change not in before.changes)
    return Surroundings(
        at=at,
        state=state,
        upstream=_answer(state),
        changes=changes,
        signatures=tuple(new),
        breaches=tuple(breaches),
        problems=tuple(f"{source}: {each.why}" for source, each in state.down.items()),
        holds=_why(told, Action.HOLD),
        rolls_back=_why(told, Action.ROLL_BACK),
        pages=tuple(around_pages.of_look(before, state, changes=changes, new=new, told=told, due=due)),
    )


async def keep(core: Core, release: Release, around: Surroundings) -> None:
    """Keep what a look saw with the running phase, for the status view and the next controller. Raises DatabaseDown."""
    kept = {"lines": around.state.lines(), "state": around.state.as_json()}
    await releases.note(core.database, release, PhaseNote(around=kept))


async def once(core: Core, release: Release) -> Surroundings:
    """Look, and keep it, where the next look may be a minute away: an upstream in doubt is asked until it is sure.

    Raises DatabaseDown.
    """
    seen = await look(core, release, await begin(core, release))
    pages = list(seen.pages)
    for _ in range(core.environment.upstream.failures if core.environment.upstream is not None else 0):
        if not seen.state.in_doubt:
            break
        await asyncio.sleep(AGAIN_SECONDS)
        seen = await look(core, release, seen.state)
        pages += seen.pages
    await keep(core, release, seen)
    return replace(seen, pages=tuple(pages))


async def ask_to_hold(core: Core, release: Release, why: str) -> None:
    """Ask the controller to hold the release, as a person would: from there a person decides. Raises DatabaseDown.

    A release that cannot be held now goes on: the bar is shown and paged in any case.
    """
    await _ask_for(Verb.HOLD, core, release, why)


async def ask_to_roll_back(core: Core, release: Release, why: str) -> None:
    """The same for a rollback. A release that deployed nothing is held instead. Raises DatabaseDown."""
    deployed = release.from_revision != release.to_revision
    await _ask_for(Verb.ROLLBACK if deployed else Verb.HOLD, core, release, why)


async def _ask_for(verb: Verb, core: Core, release: Release, why: str) -> None:
    now = await releases.get(core.database, release.id)
    with contextlib.suppress(Refused):
        raise_unless_allowed(verb, now)
        await requests.ask(core.database, now, verb, by="the bars of the environment", reason=why)


def _is_due(state: AroundState, at: datetime) -> bool:
    """Whether the hosts are looked at again; at once after the clock was set back."""
    return state.measured_at is None or not timedelta() <= at - state.measured_at < timedelta(
        seconds=PAUSE_SECONDS
    )


async def _nothing() -> None:
    """No look at the hosts."""


@asynccontextmanager
async def _shells(core: Core, shells: Sequence[Shell] | None) -> AsyncIterator[list[Shell]]:
    if shells is not None:
        yield list(shells)
        return
    async with open_hosts(core.environment, connected=False) as own:
        yield own


async def _ask(core: Core, state: AroundState, at: datetime) -> UpstreamAnswer | None:
    """The upstream's answer, when it is due. A first failed answer is repeated at the next look."""
    settings = core.environment.upstream
    if settings is None:
        return None
    since = None if state.asked_at is None else at - state.asked_at
    if (
        since is not None
        and not state.in_doubt
        and timedelta() <= since < core.clock.real(settings.interval_seconds)
    ):
        return None
    return await upstream.ask(core, within=ASK_SECONDS)


def _answer(state: AroundState) -> UpstreamAnswer | None:
    found = state.upstream
    return None if found is None else UpstreamAnswer(up=found.up, sentence=found.sentence)


def _named(problem: str) -> tuple[str, str]:
    source, _, why = problem.partition(": ")
    return source, why


def _broken(core: Core, before: Mapping[str, Broken], breaches: Iterable[str]) -> dict[str, Broken]:
    """The bars that are broken now, with how many looks in a row each has been. One that is not any more is gone."""
    broken = {}
    for sentence in breaches:
        key, _ = _named(sentence)
        action = action_of(core.environment, key.rpartition(" ")[2])
        broken[key] = around_checks.again(before.get(key), sentence, action)
    return broken


def _is_new(broken: Broken) -> bool:
    """Whether a broken bar is to be told now."""
    return broken.looks >= around_checks.LOOKS_MIN and not broken.told


def _why(told: Mapping[str, Broken], action: Action) -> str:
    return "; ".join(each.sentence for each in told.values() if each.action is action)
