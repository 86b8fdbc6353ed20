"""What a deploy does on each host, and in which order: the table of a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.environment.model import Environment
from handlers.release.phase import Phase

_STEPS = {"stop-workers": "stop", "activate": "switch", "start-workers": "start"}


def step_of(kind: str) -> str:
    """The name of the step, for people, of an operation's kind: `activate` and `back-activate` are `switch`."""
    verb = kind.removeprefix("back-")
    return _STEPS.get(verb, verb)


@dataclass(frozen=True, kw_only=True)
class HostSteps:
    """What is done on one host: for each step its place in the order of the deploy. Equal places are done together."""

    host: str
    places: dict[str, int]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> HostSteps:
        """From the ledger."""
        return cls(host=str(stored.get("host", "")), places=dict(stored.get("places") or {}))


def host_steps(environment: Environment, scope: tuple[Phase, ...]) -> tuple[HostSteps, ...]:
    """The table of hosts and steps of a deploy, in the order of the environment file: one host alone, then groups.

    Each host is probed with its group right after its switch; the number of `probe` is that of the whole fleet.
    """
    if Phase.DEPLOYING not in scope:
        return ()
    has_workers = bool(environment.services.workers)
    first_switch = 3 if has_workers else 2
    groups = [group for group, _ in _grouped(environment)]
    last_switch = first_switch + max(groups, default=0)
    found = []
    for group, host in _grouped(environment):
        places = {"prepare": 1}
        if has_workers:
            places["stop"] = 2
        places["switch"] = first_switch + group
        if has_workers:
            places["start"] = last_switch + 1
        if Phase.PROBING in scope:
            places["probe"] = last_switch + 1 + has_workers
        found.append(HostSteps(host=host, places=places))
    return tuple(found)


def _grouped(environment: Environment) -> list[tuple[int, str]]:
    """Each host with the number of its group, from 0."""
    found: list[tuple[int, str]] = []
    names = [host.name for host in environment.hosts]
    size, number = 1, 0
    while names:
        found += [(number, name) for name in names[:size]]
        names, size, number = names[size:], size * max(1, environment.deploy.group_factor), number + 1
    return found
