"""The progress of a release as lines, where nothing can be redrawn: a pipe, a log, --plain.

One line for each change, and when nothing changes for a while one that says what is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from handlers.environment.advice import addressed
from handlers.status.lines import told_apart, wait_line
from handlers.status.tree_lines import BY_PEOPLE, NAMED_MAX
from handlers.status.view import HostStep, StatusView, StepState, StepView
from handlers.status.wrapping import beside_usual, plain

SILENT_SECONDS = 20.0
"""After so many real seconds without a line, one says what the release waits for."""
_SHOWN = (StepState.RUNNING, StepState.DONE, StepState.FAILED)


class Progress:
    """Remembers what has been said."""

    def __init__(self) -> None:
        self._said: set[tuple[object, ...]] = set()
        self._last_at: datetime | None = None
        self._away_seconds = 0.0

    def lines(self, view: StatusView) -> list[str]:
        """What is new in this view, in order; after a while without news, what it waits for."""
        self._away_seconds = 0.0
        found = [addressed(plain(line), view.environment) for line in self._news(view)]
        if self._last_at is None:
            self._last_at = view.at
        if not found and (view.at - self._last_at).total_seconds() >= SILENT_SECONDS:
            found = [f"{_clock(view.at)} waits for {plain(wait_line(wait))}" for wait in view.waits]
        if found:
            self._last_at = view.at
        return found

    def away(self, seconds: float) -> list[str]:
        """That the ledger has not answered for so many seconds: at once, and again after a while."""
        if self._away_seconds and seconds - self._away_seconds < SILENT_SECONDS:
            return []
        self._away_seconds = max(seconds, 0.1)
        return [away_line(seconds)]

    def _news(self, view: StatusView) -> Iterator[str]:
        if view.release is not None and self._is_new(("time", view.release.id)):
            yield from filter(None, [told_apart(view)])
        for step in view.steps:
            hosts, phase = self._hosts(step), self._step(step, view.at)
            # A phase begins before its first step on a host, and ends after the last one.
            yield from (*phase, *hosts) if step.state is StepState.RUNNING else (*hosts, *phase)

    def _step(self, step: StepView, at: datetime) -> Iterator[str]:
        is_silent = step.state is StepState.RUNNING and not step.sentence
        if step.at is None or is_silent or not self._is_new((step.name, step.state, step.sentence)):
            return
        # A running step has the time of this view, a finished one the time of its end.
        runs = step.state is StepState.RUNNING
        took = beside_usual(step.seconds, step.usual_seconds)
        is_timed = not runs and step.phase not in BY_PEOPLE
        after = f" after {took}" if took and is_timed else ""
        yield f"{_clock(at if runs else step.at)} {step.name} {step.state}{after}: {step.sentence}"

    def _hosts(self, step: StepView) -> Iterator[str]:
        """The steps on hosts that have changed, those that are alike together."""
        news: dict[tuple[str, StepState], list[tuple[str, HostStep]]] = {}
        for host in step.hosts:
            for each in host.steps:
                key = (step.name, host.host, each.step, each.state, each.started_at)
                if each.state in _SHOWN and self._is_new(key):
                    news.setdefault((each.step, each.state), []).append((host.host, each))
        for (name, state), changed in news.items():
            yield _host_line(step.name, name, state, changed)

    def _is_new(self, key: tuple[object, ...]) -> bool:
        is_new = key not in self._said
        self._said.add(key)
        return is_new


def away_line(seconds: float) -> str:
    """That the ledger does not answer, for the reader of a view."""
    return (
        f"the database has not answered for {seconds:.0f} s; the release goes on by itself, as far as it can"
    )


def _host_line(phase: str, step: str, state: StepState, changed: list[tuple[str, HostStep]]) -> str:
    names = [host for host, _ in changed]
    who = ", ".join(names) if len(names) <= NAMED_MAX else f"{len(names)} hosts"
    steps = [each for _, each in changed]
    if state is StepState.RUNNING:
        at = min((each.started_at for each in steps if each.started_at), default=None)
        told = beside_usual(None, steps[0].usual_seconds)
    else:
        at = max((each.finished_at for each in steps if each.finished_at), default=None)
        seconds = max((each.seconds for each in steps if each.seconds is not None), default=None)
        told = beside_usual(seconds, steps[0].usual_seconds)
    said = ": ".join(filter(None, (told, steps[0].sentence)))
    return f"{_clock(at)} {phase}: {step} of {who} {state}{f': {said}' if said else ''}"


def _clock(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S}" if at else " " * 8
