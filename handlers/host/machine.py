"""How busy and how full the hosts and the database are, and the bars for it. They are shown, paged, and may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from handlers.database.connections import DatabaseConnections
from handlers.environment.around import Machine
from handlers.errors import TryAgain
from handlers.host.command import Command
from handlers.host.sh import script
from handlers.host.ssh import Shell

DATABASE = "database"
"""What sentences about the database's connections begin with."""
_SHOWN = (("load", ".1f", " per CPU"), ("memory", ".0f", " % available"), ("disk", ".0f", " % free"))
"""The readings of a host, and how each is shown."""
_HOSTS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class HostLoad:
    """The readings of one host. One that cannot be had is None."""

    host: str
    load1: float | None = None
    """The mean number of processes that ran or waited for the disk in the last minute."""
    cpus: int | None = None
    memory_available_percent: float | None = None
    disk_free_percent: float | None = None
    """Of the file system of deploy.directory, as far as an ordinary user may fill it."""

    @property
    def load_per_cpu(self) -> float | None:
        """The load by the number of CPUs; above 1 something waits."""
        return self.load1 / self.cpus if self.load1 is not None and self.cpus else None

    def as_json(self) -> dict[str, Any]:
        """The readings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """From what `as_json` has made of it."""
        return cls(**{name: value for name, value in stored.items() if name in cls.__dataclass_fields__})


async def read(shell: Shell) -> HostLoad:
    """The readings of a host, in one short command. Raises TryAgain, or Unreachable."""
    command = Command.procedure(script("machine"), shell.environment.deploy.directory, title="machine")
    result = await shell.run(command)
    if not result.good:
        raise TryAgain(f"{shell.host.name} could not be measured: {result.summary}")
    return parse(shell.host.name, result.stdout)


def parse(host: str, text: str) -> HostLoad:
    """The readings in the output of the script; what is no number there is None."""
    parts = {
        name: list(_numbers(body))
        for name, _, body in (part.partition("\n") for part in text.split("\x01")[1:])
    }
    load, cpus, memory, disk = (parts.get(name, []) for name in ("load", "cpus", "memory", "disk"))
    total, available = memory if len(memory) == 2 else (0.0, 0.0)
    used, free = disk if len(disk) == 2 else (0.0, 0.0)
    return HostLoad(
        host=host,
        load1=load[0] if load else None,
        cpus=int(cpus[0]) if cpus and cpus[0] >= 1 else None,
        memory_available_percent=round(100 * available / total, 1) if total else None,
        disk_free_percent=round(100 * free / (used + free), 1) if used + free else None,
    )


def breaches(
    bars: Machine, hosts: Iterable[HostLoad], connections: DatabaseConnections | None = None
) -> list[str]:
    """The bars that are broken, one sentence for each: its part before the colon names host and reading."""
    found = []
    for host in hosts:
        found += [
            f"{host.host} {reading}: {sentence}"
            for reading, sentence in _host_breaches(bars, host)
            if sentence
        ]
    if connections is not None and _is_above(connections.percent, bars.connections_percent):
        found.append(
            f"{DATABASE} connections: {connections.used} of {connections.maximum} are used "
            f"({connections.percent:.0f} %); the bar is {bars.connections_percent:g} %"
        )
    return found


def missing(bars: Machine, hosts: Iterable[HostLoad]) -> list[str]:
    """The readings that have a bar and could not be had: not knowing is not good."""
    needed = {
        "load": bars.load_per_cpu,
        "memory": bars.memory_available_percent,
        "disk": bars.disk_free_percent,
    }
    return [
        f"{host.host} {name}: it cannot be read on this host"
        for host in hosts
        for name, bar in needed.items()
        if bar is not None and _reading(host, name) is None
    ]


def shown(hosts: Sequence[HostLoad], connections: DatabaseConnections | None) -> str:
    """The readings in one line; of many hosts the worst of each."""
    parts = (
        [f"{each.host} {_host(each)}" for each in hosts] if len(hosts) <= _HOSTS_SHOWN else [_worst(hosts)]
    )
    if connections is not None:
        states = ", ".join(f"{count} {state}" for state, count in connections.by_state.items())
        parts.append(f"{DATABASE} {connections.used} of {connections.maximum} connections ({states})")
    return "; ".join(part for part in parts if part)


def _host_breaches(bars: Machine, host: HostLoad) -> Iterator[tuple[str, str]]:
    load, memory, disk = host.load_per_cpu, host.memory_available_percent, host.disk_free_percent
    if _is_above(load, bars.load_per_cpu):
        yield "load", f"{load:.1f} for each of {host.cpus} CPUs; the bar is {bars.load_per_cpu:g}"
    if _is_above(bars.memory_available_percent, memory):
        yield "memory", f"{memory:g} % are available; the bar is {bars.memory_available_percent:g} %"
    if _is_above(bars.disk_free_percent, disk):
        yield "disk", f"{disk:g} % are free; the bar is {bars.disk_free_percent:g} %"


def _is_above(value: float | None, bar: float | None) -> bool:
    return value is not None and bar is not None and value > bar


def _host(host: HostLoad) -> str:
    parts = []
    for name, form, unit in _SHOWN:
        value = _reading(host, name)
        parts.append(f"{name} {value:{form}}{unit}" if value is not None else f"{name} unknown")
    return ", ".join(parts)


def _worst(hosts: Sequence[HostLoad]) -> str:
    """Each reading of the host on which it is worst."""
    parts = []
    for name, form, unit in _SHOWN:
        worst = max if name == "load" else min
        values = [(value, host.host) for host in hosts if (value := _reading(host, name)) is not None]
        if values:
            value, host_name = worst(values)
            parts.append(f"{host_name} {name} {value:{form}}{unit}")
    return f"worst of {len(hosts)} hosts: {', '.join(parts)}" if parts else ""


def _reading(host: HostLoad, name: str) -> float | None:
    match name:
        case "load":
            return host.load_per_cpu
        case "memory":
            return host.memory_available_percent
        case _:
            return host.disk_free_percent


def _numbers(text: str) -> Iterator[float]:
    for word in text.split():
        try:
            yield float(word)
        except ValueError:
            return
