"""Where a person is told: the log, then the outbox; while the ledger is away, a page is sent at once without it."""

from __future__ import annotations

import asyncio
import logging

from handlers.core import Core
from handlers.environment.model import Environment
from handlers.environment.notification import Severity
from handlers.environment.redact import known_secrets, redact_text
from handlers.errors import LEDGER_AWAY, ConfigError
from handlers.notify import service
from handlers.notify.text import write_out
from handlers.release.ledger import outbox
from handlers.release.ledger.outbox import Message
from handlers.release.phase import Release
from handlers.release.topic import RECOVERIES, Topic, severity_of

log = logging.getLogger(__name__)

WRITE_SECONDS = 3.0
"""Nothing waits longer for the outbox: the line in the log is there."""


async def tell(
    core: Core,
    run: Release,
    topic: Topic,
    sentence: str,
    *,
    subject: str = "",
    severity: Severity | None = None,
    once: bool = False,
) -> None:
    """Tell people something about a release. Never raises, and is bounded.

    *subject* is a host, a bar or a source: a recovery of it ends its trouble. *once*: not again before that.
    """
    say(run, topic, sentence, severity=severity)
    if await write(core, run, topic, sentence, subject=subject, severity=severity, once=once):
        return
    if (severity or severity_of(topic)) is Severity.PAGE:
        message = of_release(run, topic, sentence, severity=severity)
        await send_without_ledger(core.environment, message)


def say(run: Release, topic: Topic, sentence: str, *, severity: Severity | None = None) -> None:
    """The line in the log: an error where a person should act."""
    is_trouble = topic not in RECOVERIES and (severity or severity_of(topic)) is not Severity.INFO
    log.log(logging.ERROR if is_trouble else logging.WARNING, "release %s: %s", run.id, sentence)


async def write(
    core: Core,
    run: Release,
    topic: Topic,
    sentence: str,
    *,
    subject: str = "",
    severity: Severity | None = None,
    sent_otherwise: str = "",
    once: bool = False,
) -> bool:
    """Write a message into the outbox. False when the ledger could not be told in time."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await outbox.write(
                core.database,
                run.environment,
                topic,
                sentence,
                release_id=run.id,
                subject=subject,
                severity=severity,
                sent_otherwise=sent_otherwise,
                once=once,
            )
    except (*LEDGER_AWAY, TimeoutError) as error:
        log.warning("people are told without the ledger: %s", error or "it does not answer")
        return False
    except Exception:
        # Telling ends nothing: it is in the log.
        log.exception("release %s: a message could not be written", run.id)
        return False
    return True


def of_release(run: Release, topic: Topic, sentence: str, *, severity: Severity | None = None) -> Message:
    """A message about a release that is in no outbox."""
    return Message(
        id=0,
        environment=run.environment,
        release_id=run.id,
        topic=topic,
        subject="",
        severity=severity or severity_of(topic),
        sentence=sentence,
        is_summary=False,
        from_revision=run.from_revision,
        to_revision=run.to_revision,
        requested_by=run.requested_by,
        more=0,
    )


async def send_without_ledger(environment: Environment, message: Message) -> str:
    """Send a message to every address that it is for, once and without an outbox. Returns what came of it."""
    secrets = known_secrets(environment)
    text = write_out(message, environment, lambda said: redact_text(said, secrets))
    names = environment.notify.names_for(message.severity)
    within = environment.notify.answer_seconds

    async def one(name: str) -> str:
        [url] = (each.url for each in environment.notify.addresses if each.name == name)
        try:
            answer = await service.send(
                url.get_secret_value(), text, severity=message.severity, thread="", within=within
            )
        except ConfigError as error:
            return f"{name}: {error}"
        return f"{name}: {answer.sentence}"

    answers = await asyncio.gather(*map(one, names))
    sentence = f"sent without the ledger: {'; '.join(answers) or 'no address'}"
    log.warning("release %s: %s", message.release_id, sentence)
    return sentence
