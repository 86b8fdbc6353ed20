"""A test webhook: signed and sent as the source sends one, followed to the ERP's row, and removed without a trace."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from sqlalchemy.exc import DBAPIError

from handlers.core import Core
from handlers.database import clock, migrate
from handlers.database.privileges import Need, obstacles
from handlers.database.queries import queries
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.entities import compare, statements
from handlers.entities.registry import HANDLERS
from handlers.environment.receiving import Receiving
from handlers.errors import LEDGER_AWAY, Refused
from handlers.phases import synthetic
from handlers.queue import look
from handlers.queue.diagnose import fingerprint
from handlers.queue.event import SETTLED, SYNTHETIC_KEY, EntityType, Status
from handlers.queue.look import EventState
from handlers.receiver import signature
from handlers.release.ledger import releases

_SQL = queries(__name__)
_POLL_SECONDS = 0.1
_ANSWER_MAX = 300
_TABLE = HANDLERS[EntityType.PRODUCT].table
NEEDS = (
    Need(table="tds_sync_queue", privileges="SELECT DELETE"),
    Need(table="tds_inbox_events", privileges="SELECT DELETE"),
    Need(table=_TABLE.name, privileges="SELECT DELETE"),
)
"""What is needed to take it away again: asked before anything is sent."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the way, and how long after the call it was reached."""

    name: str
    seconds: float
    sentence: str


@dataclass(kw_only=True)
class SentWebhook:
    """What became of a test webhook."""

    event: UUID | None = None
    good: bool = False
    sentence: str = ""
    stages: list[Stage] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What could not be removed; empty when nothing is left of it."""


async def send(core: Core, limit_seconds: float) -> SentWebhook:
    """Send one, follow it to its row for at most so long, and remove it. Raises Refused before anything is sent."""
    receiver = await _ready(core)
    trip = _Trip(core=core, receiver=receiver, at=await clock.now(core.database), began=monotonic())
    try:
        if await trip.is_taken():
            await trip.follow(limit_seconds)
    finally:
        # Also when somebody presses Ctrl-C: nothing may stay.
        await asyncio.shield(trip.remove())
    sent = trip.sent
    if sent.left:
        sent.good = False
        sent.sentence = f"{sent.sentence}; left behind: {'; '.join(sent.left)}"
    return sent


async def _ready(core: Core) -> Receiving:
    environment = core.environment
    receiver = environment.receiver
    if receiver is None:
        raise Refused(
            f"{environment.name} has no [receiver] in its environment file: product_url says where webhooks are sent"
        )
    if denied := (await obstacles(core.database, NEEDS)).sentence():
        raise Refused(f"a test webhook could not be removed again, so none was sent: {denied}")
    if not await migrate.pending(core.database):
        run = await releases.live(core.database, environment.name)
        if run is not None:
            raise Refused(
                f"release {run.id} of {environment.name} is {run.phase}, and its canary may use the same "
                "synthetic product: send it when the release has ended"
            )
    async with transaction(core.database) as tx:
        other = (await tx.execute(_SQL["open_ones"], {"synthetic": SYNTHETIC_KEY})).first()
    if other is not None:
        raise Refused(
            f"another synthetic event is {other.status}: `runbook queue show {other.id}` says what it waits for"
        )
    return receiver


class _Trip:
    """The way of one call, from the receiver to the row and out again."""

    def __init__(self, *, core: Core, receiver: Receiving, at: datetime, began: float) -> None:
        self.sent = SentWebhook()
        self._core, self._receiver, self._began = core, receiver, began
        name = f"tds-runbook test webhook {secrets.token_hex(8)}"
        # By the database's clock, as the canary's: two of them are in the order in which they were sent.
        self._payload = json.dumps(synthetic.product(at, name))
        self._mark = name.rpartition(" ")[2]
        self._values = {"synthetic": SYNTHETIC_KEY, "since": at, "name": name}

    async def is_taken(self) -> bool:
        """Send the call. Whether the receiver has taken it; otherwise the result says why not."""
        receiver, body = self._receiver, self._payload.encode()
        where = urlsplit(receiver.product_url)
        headers = {"Content-Type": "application/json", "X-Request-Id": self._mark}
        if receiver.secret is not None:
            secret = receiver.secret.get_secret_value().encode()
            signed = signature.sign(secret, signature.pairs(where.query.encode()), body)
            headers[signature.HEADER.decode()] = signed
        port = f":{where.port}" if where.port else ""
        # Without the query: it may hold a secret.
        shown = f"{where.scheme}://{where.hostname}{port}{where.path}"
        try:
            answer = await self._core.http.post(
                receiver.product_url, content=body, headers=headers, timeout=receiver.answer_seconds
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.sent.sentence = f"the receiver at {shown} does not answer: {error or type(error).__name__}"
            return False
        if answer.status_code != 200:
            told = " ".join(answer.text[:_ANSWER_MAX].split())
            self.sent.sentence = f"the receiver at {shown} refused it with {answer.status_code}: {told}"
            return False
        self._note("answered", f"200 from {shown}")
        return True

    async def follow(self, limit_seconds: float) -> None:
        """Look where it is until it has settled, for at most so long."""
        deadline = monotonic() + limit_seconds
        while True:
            state = await self._state()
            if state is not None and state.started_at and "taken" not in self._reached:
                self._note("taken", f"by {_worker(state)}")
            if state is not None and state.status in SETTLED:
                await self._judge(state)
                return
            if monotonic() >= deadline:
                self.sent.sentence = _too_late(state, limit_seconds)
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def remove(self) -> None:
        """Remove the rows of queue, inbox and ERP. What has to stay is said."""
        try:
            async with transaction(self._core.database) as tx:
                row = (await tx.execute(_SQL["ours"], self._values)).first()
                if row is None:
                    return
                inbox = (await tx.execute(_SQL["remove"], {"id": row.id})).scalar_one_or_none()
                if inbox is None:
                    self.sent.left.append(f"event {row.id}, which a worker has in hand")
                    return
                await tx.execute(_SQL["remove_inbox"], {"id": inbox})
                await tx.execute(statements.remove(_TABLE), {"key": SYNTHETIC_KEY})
        except DBAPIError as error:
            self.sent.left.append(f"the rows of the synthetic product ({message_of(error)})")
            return
        except LEDGER_AWAY as error:
            self.sent.left.append(f"the synthetic product and its event ({error})")
            return
        self._note("removed", f"the rows of queue, inbox and {_TABLE.name}")

    @property
    def _reached(self) -> set[str]:
        return {stage.name for stage in self.sent.stages}

    async def _state(self) -> EventState | None:
        async with transaction(self._core.database) as tx:
            if self.sent.event is None:
                row = (await tx.execute(_SQL["ours"], self._values)).first()
                if row is None:
                    return None
                self.sent.event = row.id
                self._note("queued", f"event {row.id}")
            states = await look.states(tx, [self.sent.event])
        return states[0] if states else None

    async def _judge(self, state: EventState) -> None:
        if state.status is not Status.COMPLETED:
            error = fingerprint(state.error_message or "no error text")
            self.sent.sentence = f"it became {state.status}, {state.error_code}: {error}"
            return
        self._note("completed", f"by {_worker(state)}")
        by_us = "revision" in (state.processing_result or {})
        async with transaction(self._core.database) as tx:
            differ = await compare.differences(
                tx, EntityType.PRODUCT, SYNTHETIC_KEY, self._payload, by_us=by_us
            )
        if differ:
            self.sent.sentence = f"it is completed, but its row is not what was sent: {'; '.join(differ)}"
            return
        self._note("row", f"{_TABLE.name} has it as it was sent")
        seconds = self.sent.stages[-1].seconds
        self.sent.good = True
        self.sent.sentence = (
            f"it went through the receiver, the queue and a worker to {_TABLE.name} in {seconds:.2f} s"
        )

    def _note(self, name: str, sentence: str) -> None:
        self.sent.stages.append(Stage(name=name, seconds=monotonic() - self._began, sentence=sentence))


def _too_late(state: EventState | None, limit_seconds: float) -> str:
    if state is None:
        return (
            f"the receiver took it, but it is not in this queue after {limit_seconds:g} s: "
            "does the receiver write to another database?"
        )
    if state.started_at is None:
        return f"no worker took it within {limit_seconds:g} s: `runbook workers` shows which ones live"
    error = f", {state.error_code}: {fingerprint(state.error_message or '')}" if state.error_code else ""
    return f"it is {state.status} after {limit_seconds:g} s{error}"


def _worker(state: EventState) -> str:
    told = state.processing_result or {}
    revision = str(told.get("revision") or "")[:7]
    return f"{told.get('worker') or 'a worker'}{f' on {revision}' if revision else ''}"
