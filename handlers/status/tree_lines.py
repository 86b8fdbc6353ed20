"""The tree of phases, hosts and steps as lines of text. Hosts with the same steps in the same states are one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from handlers.release.phase import Phase
from handlers.status.view import HostStep, HostTree, StepState, StepView
from handlers.status.wrapping import beside_usual, wrapped

NAMED_MAX = 3
"""More hosts in one state are counted instead of named."""
_NAME_MAX = 24
BY_PEOPLE = (Phase.PLANNED, Phase.APPROVED)
"""How long people take is not compared with anything."""


def step_lines(step: StepView, width: int, *, sped_up: bool = False) -> list[str]:
    """One phase: its state, time, duration beside the usual one, and sentence.

    *sped_up* says that it is a rehearsal, in which the duration is marked as real time.
    """
    at = f"{step.at:%H:%M}" if step.at else "     "
    head = f" {f'[{step.state}]':<9} {step.name:<9} {at}  "
    took = phase_took(step, sped_up=sped_up)
    return wrapped(head, ": ".join(filter(None, (took, step.sentence))), width, indent=len(head))


def phase_took(step: StepView, *, sped_up: bool = False) -> str:
    """How long a phase took beside what is usual; empty where people decide how long."""
    if step.phase in BY_PEOPLE:
        return ""
    return beside_usual(step.seconds, step.usual_seconds, unit=" real" if sped_up else "")


def host_lines(step: StepView, width: int) -> list[tuple[StepState, list[str]]]:
    """The steps on the hosts below a phase, each with its state and its lines.

    Of a phase that runs it is all of them, otherwise what went wrong.
    """
    trees = _together(step.hosts)
    column = min(_NAME_MAX, max((len(name) for name, _ in trees), default=0))
    found = []
    for name, steps in trees:
        for each in steps:
            if step.state is StepState.RUNNING or each.state is StepState.FAILED:
                head = f"   {name[:column]:<{column}} {f'[{each.state}]':<9} {each.step:<7}  "
                found.append((each.state, wrapped(head, _said(each), width, indent=len(head))))
    return found


def _said(step: HostStep) -> str:
    took = beside_usual(step.seconds, step.usual_seconds)
    if step.state is StepState.RUNNING and step.started_at is not None:
        took += f", since {_clock(step.started_at)}"
    return ": ".join(filter(None, (took, step.sentence)))


def _together(hosts: Iterable[HostTree]) -> list[tuple[str, list[HostStep]]]:
    """The steps of the hosts that are equally far, once, with the longest durations."""
    groups: dict[object, list[HostTree]] = {}
    for host in hosts:
        groups.setdefault(tuple((step.step, step.state, step.sentence) for step in host.steps), []).append(
            host
        )
    found = []
    for alike in groups.values():
        names = [host.host for host in alike]
        named = ", ".join(names)
        if len(names) > NAMED_MAX or len(named) > _NAME_MAX:
            named = f"{len(names)} hosts" if len(names) > 1 else names[0]
        found.append(
            (named, [_longest(steps) for steps in zip(*(host.steps for host in alike), strict=True)])
        )
    return found


def _longest(steps: tuple[HostStep, ...]) -> HostStep:
    began = [step.started_at for step in steps if step.started_at]
    took = [step.seconds for step in steps if step.seconds is not None]
    return replace(steps[0], started_at=min(began, default=None), seconds=max(took, default=None))


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S}"
