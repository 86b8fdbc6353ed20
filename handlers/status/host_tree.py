"""The steps of one phase on each host: what has been done, what runs and since when, and what waits for what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from handlers.release.host_steps import step_of
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.note import ReturnNote
from handlers.release.phase import Phase
from handlers.release.planned import Plan
from handlers.release.usual import UsualSteps
from handlers.status.host_proof import PROBE, back_probe, probe, seconds_between
from handlers.status.view import HostStep, HostTree, StepState

_ORDER = ("prepare", "stop", "switch", PROBE, "start")
_ORDER_BACK = ("prepare", "stop", "switch", "start", PROBE)
_DONE = "done"
_FLEET_MAX = 3
"""More hosts that are waited for are counted."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation on a host, as the ledger has it."""

    phase: Phase
    host: str
    kind: str
    outcome: str | None
    started_at: datetime
    finished_at: datetime | None
    last_line: str = ""
    """The last line of its output, of one that failed."""


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """Steps of a deploy that are done together: no host begins the next stage before all have done this one."""

    step: str
    hosts: tuple[str, ...]


@dataclass
class _Host:
    """What is known of one host in the phase."""

    name: str
    found: dict[str, HostStep] = field(default_factory=dict)


def host_tree(
    record: PhaseRecord, operations: Iterable[Operation], plan: Plan, at: datetime
) -> tuple[HostTree, ...]:
    """The steps of a phase on each host, in the order of the plan; empty where the phase is not about hosts.

    *record* is the newest stay in the phase. Durations are real seconds, until *at* for what runs.
    """
    if record.phase not in (Phase.DEPLOYING, Phase.PROBING, Phase.ROLLING_BACK):
        return ()
    own = [each for each in operations if each.phase is record.phase and each.started_at >= record.started_at]
    names = _names(plan, own, record)
    hosts = {name: _Host(name=name) for name in names}
    for operation in sorted(own, key=lambda each: each.started_at):
        _add(hosts[operation.host].found, operation, record, plan.usual_steps, at)
    match record.phase:
        case Phase.ROLLING_BACK:
            found = [_back(host, record, plan, at) for host in hosts.values()]
        case Phase.PROBING:
            found = [_probing(host, record, plan.usual_steps, at) for host in hosts.values()]
        case _:
            found = _deploying(hosts, record, plan, at)
    return tuple(each for each in found if each.steps)


def _names(plan: Plan, operations: Sequence[Operation], record: PhaseRecord) -> list[str]:
    """The hosts in the order of the deploy; those that only the ledger knows come last."""
    planned = [each.host for each in plan.host_steps] or [host.name for host in plan.hosts]
    noted = [*(record.note.hosts or {}), *(record.note.returns or {})]
    return list(dict.fromkeys([*planned, *(each.host for each in operations), *noted]))


def _add(
    found: dict[str, HostStep], operation: Operation, record: PhaseRecord, usual: UsualSteps, at: datetime
) -> None:
    """Add an operation. A new `prepare` begins a new try: what an earlier one did is done again."""
    step = step_of(operation.kind)
    if step == _ORDER[0]:
        found.clear()
    ended = operation.finished_at
    if operation.outcome is None and record.finished_at is not None:
        ended = record.finished_at
    found[step] = HostStep(
        step=step,
        state=_state(operation, record),
        started_at=operation.started_at,
        finished_at=ended,
        seconds=seconds_between(operation.started_at, ended or at),
        usual_seconds=usual.seconds(record.phase, step),
        sentence=_failure(operation, record),
    )


def _state(operation: Operation, record: PhaseRecord) -> StepState:
    if operation.outcome == _DONE:
        return StepState.DONE
    is_open = operation.outcome is None and record.finished_at is None
    return StepState.RUNNING if is_open else StepState.FAILED


def _failure(operation: Operation, record: PhaseRecord) -> str:
    if operation.outcome == _DONE or (operation.outcome is None and record.finished_at is None):
        return ""
    if operation.outcome is None:
        return "its outcome was not recorded"
    return f"{operation.outcome}: {operation.last_line}" if operation.last_line else operation.outcome


def _deploying(hosts: Mapping[str, _Host], record: PhaseRecord, plan: Plan, at: datetime) -> list[HostTree]:
    for host in hosts.values():
        switch = host.found.get("switch")
        if switch is not None and switch.state is StepState.DONE and switch.finished_at is not None:
            proof = probe(host.name, record, plan.usual_steps, at, since=switch.finished_at)
            host.found |= {PROBE: proof} if proof is not None else {}
    if record.finished_at is not None:
        return [_in_order(host, _ORDER) for host in hosts.values()]
    stages = _stages(plan, hosts)
    current = next((stage for stage in stages if _left(stage, hosts)), None)
    found = []
    for host in hosts.values():
        others = [name for name in _left(current, hosts) if name != host.name] if current else []
        awaited = f"waits for {current.step} of {_named(others)}" if current and others else ""
        found.append(_with_what_comes(host, stages, current, awaited, plan.usual_steps))
    return found


def _stages(plan: Plan, hosts: Mapping[str, _Host]) -> list[_Stage]:
    """The stages of the deploy by its plan. A plan of an older ledger has none."""
    places: dict[tuple[int, str], list[str]] = {}
    for planned in plan.host_steps:
        for step, place in planned.places.items():
            if step != PROBE:
                places.setdefault((place, step), []).append(planned.host)
    stages = []
    for (_, step), names in sorted(places.items(), key=lambda each: each[0][0]):
        known = tuple(name for name in names if name in hosts)
        stages.append(_Stage(step=step, hosts=known))
        if step == "switch":
            stages.append(_Stage(step=PROBE, hosts=known))
    return stages


def _left(stage: _Stage, hosts: Mapping[str, _Host]) -> list[str]:
    """The hosts that have not done a stage yet."""
    return [
        name
        for name in stage.hosts
        if (step := hosts[name].found.get(stage.step)) is None or step.state is not StepState.DONE
    ]


def _with_what_comes(
    host: _Host, stages: Sequence[_Stage], current: _Stage | None, awaited: str, usual: UsualSteps
) -> HostTree:
    """The steps of a host with those that have not begun: the next one says what it waits for."""
    found, state = dict(host.found), StepState.NEXT
    for stage in stages:
        if host.name not in stage.hosts or stage.step in found:
            continue
        found[stage.step] = HostStep(
            step=stage.step,
            state=state,
            usual_seconds=usual.seconds(Phase.DEPLOYING, stage.step),
            sentence=awaited if state is StepState.NEXT and stage is not current else "",
        )
        state = StepState.LATER
    return _in_order(_Host(name=host.name, found=found), _ORDER)


def _probing(host: _Host, record: PhaseRecord, usual: UsualSteps, at: datetime) -> HostTree:
    proof = probe(host.name, record, usual, at, since=record.started_at)
    return HostTree(host=host.name, steps=(proof,) if proof is not None else ())


def _back(host: _Host, record: PhaseRecord, plan: Plan, at: datetime) -> HostTree:
    """The way back of one host. Its proof begins when its last operation has ended."""
    note = (record.note.returns or {}).get(host.name, ReturnNote())
    last = host.found.get("start") or host.found.get("switch")
    if note.back or (last is not None and last.state is StepState.DONE):
        since = (last.finished_at if last else None) or record.started_at
        host.found[PROBE] = back_probe(note, record, plan.usual_steps, since, at)
    elif not host.found and record.finished_at is None:
        sentence = note.sentence if note.tries else "not begun"
        host.found[_ORDER_BACK[0]] = HostStep(step=_ORDER_BACK[0], state=StepState.NEXT, sentence=sentence)
    return _in_order(host, _ORDER_BACK)


def _in_order(host: _Host, order: Sequence[str]) -> HostTree:
    places = {step: place for place, step in enumerate(order)}
    steps = sorted(host.found.values(), key=lambda step: places.get(step.step, len(order)))
    return HostTree(host=host.name, steps=tuple(steps))


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= _FLEET_MAX else f"{len(hosts)} hosts"
