"""The checks of the hosts and of the database server: load, memory, disk, new errors in the logs, connections. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from handlers.database.connections import DatabaseConnections
from handlers.environment.around import Machine
from handlers.environment.model import Environment
from handlers.host.log_state import NewSignature
from handlers.host.machine import HostLoad
from handlers.measurements.measurement import (
    Measurement,
    State,
    action_of,
    compared,
    no_data,
    source_down,
)

_ERROR_SHOWN = 100
HOST_CHECKS = ("load", "memory", "disk")


def of_readings(
    environment: Environment,
    hosts: Sequence[HostLoad],
    connections: DatabaseConnections | None,
    new: Sequence[NewSignature] | None,
    problems: Iterable[str],
) -> list[Measurement]:
    """The measurements of one look at hosts and database. What could not be read is in *problems*, by its name.

    *new* is None when no log was read.
    """
    found = [each for host in hosts for each in _of_host(environment.machine, host)]
    if connections is not None:
        found.append(_connections(environment.machine, connections))
    failed = list(dict.fromkeys(_down(problem) for problem in problems))
    logs_down = [(subject, why) for kind, subject, why in failed if kind == "log"]
    found += _logs(environment, new, logs_down)
    for kind, subject, why in failed:
        if kind == "machine":
            found += [source_down(name, why, subject=subject) for name in HOST_CHECKS]
        elif kind == "connections":
            found.append(source_down("connections", why))
    return found


def signatures(environment: Environment, new: Sequence[NewSignature]) -> Measurement:
    """The kinds of errors that the logs have since the deploy and had not before, with the newest one's text."""
    if not new:
        sentence = "no new kind of error in the logs"
    else:
        newest = new[-1]
        text = newest.fingerprint
        shown = text if len(text) <= _ERROR_SHOWN else f"{text[: _ERROR_SHOWN - 4]} ..."
        kinds = f"{len(new)} new kinds of errors" if len(new) > 1 else "a new kind of error"
        sentence = f"{kinds} in the logs, last on {newest.where[0] if newest.where else 'a host'}: {shown}"
    found = compared("new_signatures", len(new), environment.bars.new_signatures, "", "")
    return replace(found, sentence=sentence)


def _logs(
    environment: Environment, new: Sequence[NewSignature] | None, down: list[tuple[str, str]]
) -> Iterator[Measurement]:
    services = environment.services
    units = len(services.web + services.workers) if services.logs else 0
    logs = len(environment.hosts) * (units + len(services.log_files))
    if not logs:
        yield no_data("new_signatures", "no log is configured", bar=environment.bars.new_signatures)
    elif new is None:
        yield source_down("new_signatures", "without the database's time nobody knows what is new")
    elif len(down) < logs or new:
        yield signatures(environment, new)
    yield from (source_down("new_signatures", why, subject=subject) for subject, why in down)


def acting(environment: Environment, new: Sequence[NewSignature]) -> Measurement:
    """The same with what its broken bar does."""
    found = signatures(environment, new)
    return replace(found, action=action_of(environment, found.name))


def _of_host(bars: Machine, host: HostLoad) -> Iterator[Measurement]:
    readings = (
        (
            "load",
            host.load_per_cpu,
            bars.load_per_cpu,
            "",
            f"a load of {{:.1f}} for each of {host.cpus} CPUs",
        ),
        (
            "memory",
            host.memory_available_percent,
            bars.memory_available_percent,
            "%",
            "{:.0f} % of the memory is available",
        ),
        ("disk", host.disk_free_percent, bars.disk_free_percent, "%", "{:.0f} % of the disk is free"),
    )
    for name, value, bar, unit, sentence in readings:
        if value is not None:
            yield compared(
                name, value, bar, unit, sentence.format(value), subject=host.host, good_above=name != "load"
            )
        elif bar is not None:
            yield source_down(name, "this host does not tell it", subject=host.host)
        else:
            sentence = "this host does not tell it, and it has no bar"
            yield Measurement(name=name, subject=host.host, state=State.SHOWN, sentence=sentence)


def _connections(bars: Machine, counted: DatabaseConnections) -> Measurement:
    states = ", ".join(f"{count} {state}" for state, count in counted.by_state.items())
    sentence = f"{counted.used} of {counted.maximum} connections are used ({states}), {counted.percent:.0f} %"
    return compared("connections", counted.percent, bars.connections_percent, "%", sentence)


def _down(problem: str) -> tuple[str, str, str]:
    """What kind of source a problem is about, its name, and why it could not be read."""
    source, _, why = problem.partition(": ")
    where, _, what = source.partition(" ")
    if what == "machine":
        return "machine", where, why
    if source.endswith(" connections"):
        return "connections", "", why
    if what in HOST_CHECKS:
        # A reading with a bar that the host does not tell: its own measurement says so.
        return "reading", where, why
    return "log", source, why
