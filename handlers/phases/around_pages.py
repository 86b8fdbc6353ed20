"""What a person should hear of after a look around a release: each trouble once, and when it is over. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from handlers.environment.notification import Severity
from handlers.host.log_state import NewSignature
from handlers.measurements.measurement import Action
from handlers.phases import around_checks
from handlers.phases.around_state import AroundState, Broken, UpstreamChange
from handlers.release.topic import Topic


@dataclass(frozen=True, kw_only=True)
class Page:
    """Something that a person should hear of now."""

    event: Topic
    source: str
    """The log, the reading, the bar, or the upstream's address."""
    sentence: str
    severity: Severity | None = None
    """None: as urgent as its topic is."""


def of_look(
    before: AroundState,
    state: AroundState,
    *,
    changes: Iterable[UpstreamChange],
    new: Iterable[NewSignature],
    told: Mapping[str, Broken],
    due: Iterable[tuple[str, str]],
) -> Iterator[Page]:
    """What a person should hear of after a look: *told* are the bars, and *due* the sources, that are to be paged."""
    answer = state.upstream.sentence if state.upstream is not None else ""
    for change in changes:
        event, is_now = (
            (Topic.UPSTREAM_BACK, "answers again") if change.up else (Topic.UPSTREAM_AWAY, "is away")
        )
        yield Page(event=event, source=answer.partition(" ")[0], sentence=f"the upstream {is_now}: {answer}")
    for signature in new:
        where = ", ".join(signature.where)
        sentence = f"a new kind of error since the deploy, on {where}: {signature.fingerprint}"
        yield Page(event=Topic.NEW_ERROR, source=where, sentence=sentence)
    for key, broken in told.items():
        # A new error in the logs was paged at once.
        if key != "new_signatures":
            yield bar_broken(key, broken.sentence, broken.action)
    for source, sentence in due:
        yield Page(event=Topic.SOURCE_DOWN, source=source, sentence=sentence)
    yield from _over(before, state)


def bar_broken(key: str, sentence: str, action: Action) -> Page:
    """A bar that is broken: it is urgent where it acts."""
    event = Topic.CHECK_BROKEN if around_checks.is_of_a_check(key) else Topic.MACHINE_BROKEN
    severity = None if action is Action.SHOW else Severity.PAGE
    return Page(event=event, source=key, sentence=sentence, severity=severity)


def bar_whole(key: str) -> Page:
    """A bar that was broken and is kept again. It is as urgent as the trouble may have been."""
    event = Topic.CHECK_WHOLE if around_checks.is_of_a_check(key) else Topic.MACHINE_WHOLE
    return Page(event=event, source=key, sentence=f"{key} keeps its bar again")


def source_back(source: str) -> Page:
    """A source that was down too long, and can be read again."""
    return Page(event=Topic.SOURCE_BACK, source=source, sentence=f"{source} can be read again")


def _over(before: AroundState, state: AroundState) -> Iterator[Page]:
    """What was paged and is over."""
    for key, broken in before.broken.items():
        if broken.told and key not in state.broken and key != "new_signatures":
            yield bar_whole(key)
    for source, down in before.down.items():
        if down.paged and source not in state.down:
            yield source_back(source)
