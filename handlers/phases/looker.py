"""One look of the gate at live traffic: read what is new in the queue, judge, hold or open the intake, record it all.

Looks go on from the switch to the end of the watch, beside canary and drain, and while a release is held. Each is in
the ledger with what the gate was told, so that a later controller goes on from there and anybody can judge again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from handlers.core import Core
from handlers.database import clock
from handlers.database.clock import Moment
from handlers.database.transaction import transaction
from handlers.errors import LEDGER_AWAY
from handlers.gate.parameters import POOLED
from handlers.gate.sequential import Gate
from handlers.gate.values import Judgement
from handlers.phases import unwatched
from handlers.phases.facts import Fact, Facts
from handlers.phases.intake import Intake
from handlers.queue import limits
from handlers.queue.changes import changes
from handlers.release import lock
from handlers.release.ledger import guards, records, releases
from handlers.release.ledger.guards import Claim
from handlers.release.ledger.records import JudgementRecord
from handlers.release.phase import Release

log = logging.getLogger(__name__)

RULE = "sequential"
READ_AGAIN = timedelta(seconds=120)
"""So far back every look reads: a transaction that was long under way shows what it did with the time of its start."""
CLAIM = timedelta(seconds=0.1)
"""So long a claim may take."""
SET_SECONDS = 5.0
"""A clock that gained more than this between two looks was set: no clock drifts that fast."""


class Looker:
    """Judges one release, look by look, in one process. `begin` makes it from the ledger."""

    def __init__(
        self,
        gate: Gate,
        facts: Facts,
        moment: Moment,
        *,
        begin: Mapping[str, Any] | None,
        name: str,
        claim: Claim | None = None,
    ) -> None:
        """*claim*: who looks without the lock, when the release has ended."""
        self.gate = gate
        self.facts = facts
        self.moment = moment
        """The newest look, by both clocks."""
        self._read_until = moment.database if begin is None else facts.timeline.switched_at
        self.intake = Intake(name)
        self.stopped = asyncio.Event()
        """Set when nothing is to be looked at any more, so that a look is not broken off."""
        self.judgement: Judgement | None = None
        """The newest one."""
        self.claim = claim
        self.taken = 0
        """How many live events the released workers have taken, of those that this looker was first to tell."""
        self._begin = begin
        """What the first look stores: with it the others can be judged again."""
        self._unstored: list[Fact] = []
        self._away_since: float | None = None
        """The last look before the database was away."""
        self._held: dict[str, str] = {}
        """Who holds what, by stream: people, not the gate."""
        self._stopped: set[str] = set()
        """What they let nothing through of."""
        self._shifts: list[tuple[str, float]] = []
        self._changes: list[tuple[datetime, bool]] = []
        """The changes of the upstream that the gate was told."""

    @property
    def now(self) -> float:
        """When the newest look was, in runbook seconds since the switch."""
        return self.facts.timeline.at(self.moment.database)

    @property
    def stands_still(self) -> bool:
        """Whether a person stops everything: such a time is no part of a watch."""
        return POOLED in self._stopped

    def resume(self, looks: Sequence[JudgementRecord], now: float, *, ended: float | None) -> None:
        """Go on from stored looks. What the gate held then begins anew with its probes.

        After the end of the release (*ended*) nothing is held any more.
        """
        quotas: Mapping[str, int] = {}
        for each in looks:
            for since, seconds in each.inputs.get("shifts", ()):
                self.facts.timeline.shift(datetime.fromisoformat(since), seconds)
            # `runbook db prune` drops those of releases that ended long ago.
            for fact in each.inputs.get("facts", ()):
                self.gate.observe(fact)
                self.facts.remember(fact)
                match fact["ev"]:
                    case "intake":
                        quotas = fact["quotas"]
                    case "held":
                        self._held[fact["seg"]] = fact["by"]
                    case "released":
                        self._held.pop(fact["seg"], None)
        if ended is None:
            self.gate.hold(quotas, now)
        elif quotas:
            self.gate.open(ended)

    async def look(self, core: Core, release: Release, *, left: float, steers: bool = True) -> Judgement:
        """Look once. *left* is how much of the watch is left; without *steers* the intake stays as it is.

        Raises DatabaseDown when the database does not answer. What comes in around that time is no evidence.
        """
        try:
            judgement = await self._look(core, release, left, steers=steers)
        except LEDGER_AWAY:
            self._away_since = self.now if self._away_since is None else self._away_since
            raise
        self._away_since = None
        self.judgement = judgement
        return judgement

    async def _look(self, core: Core, release: Release, left: float, *, steers: bool) -> Judgement:
        moment = await clock.moment(core.database)
        self._measure(moment)
        last, before, now = self.moment.database, self.now, self.facts.timeline.at(moment.database)
        async with transaction(core.database) as tx:
            since = min(self._read_until, moment.database) - READ_AGAIN
            found = await changes(tx, since=since, open_=self.facts.open())
            in_force = await limits.limits(tx)
            gap = self._away_since is None and now - before > self.gate.parameters.stuck_s
            started = await clock.server_started(tx) if gap else None
        if started is not None:
            self.tell(unwatched.facts_of(found, self.facts.timeline, last, moment.database, started))
        self.tell(self._holds(in_force, now))
        self.tell(await self._upstream(core, release, now))
        if self._away_since is not None and not (self._changes and not self._changes[-1][1]):
            # Nobody could apply anything then, so what was under way says nothing about the release.
            away = {"ev": "upstream", "t": self._away_since, "up": False}
            self.tell([away, {"ev": "upstream", "t": now, "up": True}])
        self.tell(self.facts.of(found, now))
        self.facts.forget(before - 2 * READ_AGAIN.total_seconds() * self.facts.timeline.speed)
        judgement = self.gate.decide(now, left=left) if steers else self.gate.verdict(now, left=left)
        if steers:
            await self.intake.steer(core, self.gate, now - self.now)
        await self._record(core, release, judgement, left)
        self.moment, self._read_until = moment, moment.database
        return judgement

    def _measure(self, moment: Moment) -> None:
        """Note that the database's clock was set, so that nothing looks older or younger than it is."""
        elapsed = moment.since(self.moment)
        if abs(elapsed.set_ahead_seconds) > SET_SECONDS:
            ahead = elapsed.set_ahead_seconds
            # Forward: what has an earlier time than this happened before the clock was set, what comes later after it.
            gone = max(SET_SECONDS, min(moment.monotonic - self.moment.monotonic, ahead))
            since = moment.database if ahead < 0 else self.moment.database + timedelta(seconds=gone)
            self.facts.timeline.shift(min(since, moment.database), ahead)
            self._shifts.append((min(since, moment.database).isoformat(), ahead))
            log.warning("the database's clock was set by %.0f s", ahead)

    def tell(self, facts: Sequence[Fact]) -> None:
        """Tell the gate, and store it with the next look."""
        set_at = self.intake.set_at
        # A batch that was claimed while they were set saw no limits.
        limited = self.facts.timeline.at(set_at + CLAIM) if set_at is not None else -math.inf
        for fact in facts:
            self.gate.observe(fact)
            if fact["ev"] == "arrive":
                self.taken += fact["kind"] == "live" and "revision" not in fact
                self.intake.admitted[fact["seg"]] += fact["t"] > limited
        self._unstored += facts

    async def _upstream(self, core: Core, release: Release, now: float) -> list[Fact]:
        """What the look around the release has found of the upstream since: its outages are no evidence."""
        if core.environment.upstream is None:
            return []
        kept = await releases.upstream_changes(core.database, release)
        new = [change for change in kept if change not in self._changes]
        self._changes += new
        at = self.facts.timeline.at
        return [{"ev": "upstream", "t": min(at(time), now), "up": up} for time, up in new]

    def _holds(self, in_force: Sequence[limits.Limit], now: float) -> list[Fact]:
        """What people hold, and what they do not hold any more."""
        held = {
            limit.entity or POOLED: limit.set_by for limit in in_force if limit.set_by != self.intake.name
        }
        facts: list[Fact] = [
            {"ev": "held", "t": now, "seg": stream, "by": by}
            for stream, by in held.items()
            if stream not in self._held
        ]
        facts += [{"ev": "released", "t": now, "seg": stream} for stream in self._held if stream not in held]
        self._held = {str(stream): by for stream, by in held.items()}
        self._stopped = {
            str(limit.entity or POOLED)
            for limit in in_force
            if limit.set_by != self.intake.name and not limit.per_ten_seconds
        }
        return facts

    async def _record(self, core: Core, release: Release, judgement: Judgement, left: float) -> None:
        """Record the look with everything that the gate was told since the last one that could be recorded.

        Raises LockLost where another controller carries the release.
        """
        self._unstored += self.gate.own
        self.gate.own.clear()
        more = {"left": left, "source_down": None, "facts": self._unstored, "shifts": self._shifts}
        inputs = judgement.inputs | more | ({"begin": self._begin} if self._begin is not None else {})
        async with transaction(core.database) as tx:
            # The facts of two controllers at once would not add up.
            if self.claim is not None:
                await guards.fence(tx, self.claim)
            else:
                await lock.fence(tx, release.environment, release.token)
            await records.record_judgement(tx, release, replace(judgement, inputs=inputs))
        self._unstored, self._shifts, self._begin = [], [], None
