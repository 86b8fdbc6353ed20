"""A message in words: what happened with its numbers, what to type next, then which release. Short and plain."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from handlers.environment.advice import addressed
from handlers.environment.load import env_option
from handlers.environment.masking import mask
from handlers.environment.model import Environment
from handlers.release.ledger.outbox import Message
from handlers.release.phase import short
from handlers.release.topic import RECOVERIES, Topic

WORDS_MAX = 25
_REDACTED = "…"
_VALUES = (
    (re.compile(r"(\([^()=]*\)=)\([^()]*\)"), rf"\1({_REDACTED})"),
    (re.compile(r'"[^"]*"'), f'"{_REDACTED}"'),
    (re.compile(r"(?<=[\s(:=])'[^']*'"), f"'{_REDACTED}'"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), _REDACTED),
    (re.compile(r"\b\d{9,}\b"), _REDACTED),
)
"""What may come from a payload: values in errors, addresses, ids."""

HEADLINES: dict[Topic, str] = {
    Topic.WAITING: "Waiting for approval",
    Topic.APPROVED: "Approved",
    Topic.STARTED: "Release started",
    Topic.HELD: "Held",
    Topic.RESUMED: "Goes on",
    Topic.ROLLING_BACK: "Rolling back",
    Topic.ROLLED_BACK: "Rolled back",
    Topic.ROLLBACK_FAILED: "Rollback FAILED",
    Topic.SUCCEEDED: "Succeeded",
    Topic.ABORTED: "Aborted",
    Topic.REFUSED: "Refused",
    Topic.UNCARRIED: "Nobody carries it",
    Topic.CARRIED: "Recovered: it is carried again",
    Topic.BREACH: "Breach",
    Topic.NOT_BACK: "Host not back",
    Topic.BACK: "Recovered: host is back",
    Topic.NOT_ARMED: "Rollback not armed",
    Topic.GUARD_OVERDUE: "Guard checks overdue",
    Topic.GUARD_TAKEN: "Recovered: guard checks are taken again",
    Topic.CHECK_BROKEN: "Bar broken",
    Topic.CHECK_WHOLE: "Recovered: bar kept again",
    Topic.MACHINE_BROKEN: "Bar broken",
    Topic.MACHINE_WHOLE: "Recovered: bar kept again",
    Topic.SOURCE_DOWN: "Source down",
    Topic.SOURCE_BACK: "Recovered: source is back",
    Topic.NEW_ERROR: "New error in the logs",
    Topic.UPSTREAM_AWAY: "Upstream away",
    Topic.UPSTREAM_BACK: "Recovered: upstream is back",
    Topic.HEALED: "Healed",
    Topic.HEAL_STOPPED: "Healing stopped",
    Topic.TEST: "Test",
}
_STATUS = "runbook status {env}"
NEXT_STEPS: dict[Topic, str] = {
    Topic.WAITING: "runbook plan --release {release} {env}, then runbook approve {env} or runbook reject {env}",
    Topic.STARTED: "runbook status --watch {env}",
    Topic.HELD: "runbook status {env}, then runbook resume {env} or runbook rollback {env}",
    Topic.ROLLBACK_FAILED: "runbook status {env}, mend the hosts that it names, then runbook rollback {env}",
    Topic.ROLLED_BACK: "runbook explain {env}",
    Topic.SUCCEEDED: "runbook guard {env}",
    Topic.BREACH: "runbook explain {env}, then runbook rollback {env}",
    Topic.UNCARRIED: "runbook resume --due {env}",
    Topic.GUARD_OVERDUE: "runbook guard --due {env}",
    Topic.NEW_ERROR: "runbook report --markdown {env}",
    Topic.CHECK_BROKEN: "runbook queue show {env}",
    Topic.HEALED: "runbook heal --history {env}",
    Topic.HEAL_STOPPED: "runbook heal --dry-run {env}",
    Topic.TEST: "runbook notify list {env}",
}
"""What to type; elsewhere it is `runbook status`."""
_HAVE_A_REPORT = frozenset({Topic.ROLLED_BACK, Topic.ROLLBACK_FAILED, Topic.SUCCEEDED, Topic.ABORTED})
_GOOD = RECOVERIES | {Topic.SUCCEEDED, Topic.ROLLED_BACK}


@dataclass(frozen=True, kw_only=True)
class Text:
    """A message as it is sent."""

    title: str
    """The same for all messages of a release, so that a mail program sorts them into one conversation."""
    body: str
    thread: str = ""
    """The id of the conversation of a release, in the form of a Message-ID; empty without a release."""
    is_good: bool = False


def write_out(message: Message, environment: Environment, redact: Callable[[str], str] = mask) -> Text:
    """The text of a message. It has no value of a payload, and what *redact* knows as a secret is masked."""
    release = message.release_id
    said = addressed(without_values(redact(message.sentence)), message.environment)
    words = f"{HEADLINES[message.topic]}: {said}"
    if message.is_summary:
        words = f"{message.more + 1} more of the same. {words}"
    lines = [first_words(words), f"Next: {_next(message)}"]
    if release is not None:
        revision = f"{short(message.from_revision)} to {short(message.to_revision)}"
        if message.from_revision == message.to_revision:
            revision = short(message.to_revision)
        lines.append(f"Release {release}, {message.environment}, {revision}")
        if message.topic in _HAVE_A_REPORT:
            lines.append(f"Report: {environment.report_folder(release) / 'report.html'}")
    title = f"[{message.environment}] {f'release {release}' if release else 'tds-runbook'}"
    return Text(
        title=title,
        body="\n".join(lines),
        thread=f"<{release}.{message.environment}@tds-runbook>" if release else "",
        is_good=message.topic in _GOOD,
    )


def first_words(sentence: str) -> str:
    """*sentence* on one line, and no longer than people read."""
    words = sentence.split()
    return " ".join(words) if len(words) <= WORDS_MAX else f"{' '.join(words[:WORDS_MAX])} {_REDACTED}"


def without_values(sentence: str) -> str:
    """*sentence* without what may come from a payload: quoted values, ids, mail addresses."""
    for pattern, replacement in _VALUES:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def _next(message: Message) -> str:
    return NEXT_STEPS.get(message.topic, _STATUS).format(
        env=env_option(message.environment), release=message.release_id
    )
