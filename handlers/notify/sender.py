"""Sending the outbox: deliveries are claimed, sent, and written down; what an address does not take is tried again.

Each delivery is claimed by one sender, which makes sure of its claim right before it sends. Only a sender that was
killed after the sending, or an address that answered too late, lets a message be sent twice.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database.transaction import transaction
from handlers.environment.model import Environment
from handlers.environment.notification import Addressee, Severity
from handlers.environment.redact import known_secrets, redact_text
from handlers.errors import ConfigError
from handlers.notify import service
from handlers.notify.service import Answer
from handlers.notify.text import Text, write_out
from handlers.release.ledger import outbox
from handlers.release.ledger.outbox import Claimed

PAUSES = (10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
"""Seconds before a message is tried again; the last one repeats."""
CLAIM_MARGIN_SECONDS = 20.0
"""A claim ends so long after the time that an address may take: a sender that was killed has it no longer."""
AT_ONCE = 20
"""So many deliveries are claimed at once. Those that are not reached in time another sender may claim."""
SECONDS_MAX = 45.0
"""One sender claims nothing new after this time: the next minute brings the next one."""


@dataclass(kw_only=True)
class Sent:
    """What one sender did."""

    taken: int = 0
    waiting: int = 0
    """Not taken; tried again later."""
    given_up: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    """The newest answer of each address."""

    @property
    def sentence(self) -> str:
        """For the person or the log of the timer."""
        if not (self.taken or self.waiting or self.given_up):
            return "no message is due"
        counts = [f"{self.taken} sent"]
        counts += [f"{self.waiting} waiting"] if self.waiting else []
        counts += [f"{self.given_up} given up"] if self.given_up else []
        bad = [f"{name}: {answer}" for name, answer in sorted(self.answers.items()) if answer != "taken"]
        return "; ".join([", ".join(counts), *bad])


async def send_due(database: AsyncEngine, environment: Environment, *, only: int = 0) -> Sent:
    """Send what is due in this environment; *only* limits it to one message. Raises DatabaseDown."""
    sent, begun = Sent(), monotonic()
    if not environment.notify.addresses:
        return sent
    sender = _Sender(database, environment, sent)
    await sender.address()
    while monotonic() - begun < SECONDS_MAX and await sender.send_some(only=only):
        pass
    return sent


class _Sender:
    def __init__(self, database: AsyncEngine, environment: Environment, sent: Sent) -> None:
        self._database = database
        self._environment = environment
        self._settings = environment.notify
        self._sent = sent
        self._by = f"sender {uuid.uuid4().hex[:12]}"
        self._secrets = known_secrets(environment)

    async def address(self) -> None:
        """Make the deliveries of new messages, as the environment file says now."""
        async with transaction(self._database) as tx:
            for each in await outbox.to_address(tx, self._environment.name):
                names = self._settings.names_for(each.severity)
                if each.is_stale:
                    await outbox.send_to_nobody(
                        tx, each.id, "its news was too old when the first sender came by"
                    )
                elif not names:
                    await outbox.send_to_nobody(tx, each.id, f"no address wants {each.severity}")
                else:
                    due_at = self._settings.not_before(each.severity, each.now)
                    await outbox.address(tx, each.id, names, due_at=due_at)

    async def send_some(self, *, only: int) -> bool:
        """Send some of what is due: to all addresses at once, and to each in order. False when nothing is left."""
        claimed = await outbox.claim(
            self._database,
            self._environment.name,
            by=self._by,
            seconds=self._claim_seconds,
            limit=AT_ONCE,
            only=only,
        )
        by_address = itertools.groupby(sorted(claimed, key=_address), key=_address)
        await asyncio.gather(*(self._send_in_order(name, list(each)) for name, each in by_address))
        return bool(claimed)

    @property
    def _claim_seconds(self) -> float:
        return self._settings.answer_seconds + CLAIM_MARGIN_SECONDS

    async def _send_in_order(self, name: str, claimed: Sequence[Claimed]) -> None:
        """Send to one address. After one message that it did not take, the others wait as well."""
        for number, each in enumerate(claimed):
            answer = await self._send(name, each)
            if answer is not None and not answer.taken:
                for other in claimed[number + 1 :]:
                    await outbox.later(
                        self._database, other, answer="the one before was not taken", seconds=PAUSES[0]
                    )
                    self._sent.waiting += 1
                return

    async def _send(self, name: str, claimed: Claimed) -> Answer | None:
        """Send one message, and write down what came of it. None where another sender has it now."""
        addressee = next((each for each in self._settings.addresses if each.name == name), None)
        if addressee is None:
            await outbox.end(
                self._database, claimed, answer="the environment file has no such address now", given_up=True
            )
            self._sent.given_up += 1
            return None
        message = await outbox.message(self._database, claimed.message_id)
        text = write_out(message, self._environment, lambda said: redact_text(said, self._secrets))
        thread = await outbox.thread(self._database, message.release_id, name) if message.release_id else ""
        begun = await outbox.begin_try(self._database, claimed, seconds=self._claim_seconds)
        if begun is None:
            return None
        answer = await self._ask(addressee, text, message.severity, thread)
        self._sent.answers[name] = answer.sentence
        tries, trying = begun
        if answer.taken:
            await outbox.end(self._database, claimed, answer=answer.sentence, thread=answer.thread)
            self._sent.taken += 1
        elif trying.total_seconds() >= self._settings.keep_trying_seconds:
            why = f"given up after {tries} tries: {answer.sentence}"
            await outbox.end(self._database, claimed, answer=why, given_up=True)
            self._sent.given_up += 1
        else:
            pause = PAUSES[min(tries, len(PAUSES)) - 1]
            await outbox.later(self._database, claimed, answer=answer.sentence, seconds=pause)
            self._sent.waiting += 1
        return answer

    async def _ask(self, addressee: Addressee, text: Text, severity: Severity, thread: str) -> Answer:
        try:
            url = addressee.url.get_secret_value()
        except ConfigError as error:
            return Answer(taken=False, sentence=str(error))
        return await service.send(
            url, text, severity=severity, thread=thread, within=self._settings.answer_seconds
        )


def _address(claimed: Claimed) -> str:
    return claimed.address
