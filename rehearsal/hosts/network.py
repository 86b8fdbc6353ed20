"""The network between the controller and the hosts of a rehearsal, with a cable for each host that can be cut."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from rehearsal import processes
from rehearsal.running import in_thread

_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from rehearsal.hosts.cable import main; main()"
_PROJECT = str(Path(__file__).resolve().parents[2])


class Cable(StrEnum):
    """The state of a host's cable."""

    WORKS = "works"
    HANGS = "hangs"
    """Nothing is answered, and nothing is refused: a partition, or a host that lost its power."""
    LOSES_ANSWERS = "loses-answers"
    """What is sent arrives, and no answer comes back: a partition of one direction."""
    REFUSES = "refuses"
    """Connections are reset and refused: the host is up, but nothing serves on it."""


class Network:
    """The relays of all hosts, in a process of their own. Their ports are what the environment file names."""

    def __init__(self, process: subprocess.Popen[str], ports: Mapping[str, tuple[int, ...]]) -> None:
        self._process = process
        self._ports = ports

    @classmethod
    async def start(cls, ports: Mapping[str, Sequence[int]], *, rehearsal_id: str, tied: bool) -> Network:
        """Lay a cable in front of *ports*, by host. *tied* ends the relays with us."""
        return await in_thread(lambda: cls._start(ports, rehearsal_id, tied=tied))

    @classmethod
    def _start(cls, ports: Mapping[str, Sequence[int]], rehearsal_id: str, *, tied: bool) -> Network:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUN, _PROJECT, *([] if tied else ["stay"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It may outlive us, and whoever reads our output waits for the end of every process that has it.
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, processes.MARKER: rehearsal_id},
            cwd="/",
            start_new_session=True,
        )
        lines = [" ".join([host, *map(str, numbers)]) for host, numbers in ports.items()]
        published = iter(map(int, _ask(process, "\n".join([*lines, "", ""])).split()))
        return cls(
            process, {host: tuple(next(published) for _ in numbers) for host, numbers in ports.items()}
        )

    def ports(self, host: str) -> tuple[int, ...]:
        """The ports of *host* behind its cable, in the order in which they were given."""
        return self._ports[host]

    async def set(self, host: str, state: Cable) -> None:
        """Cut the cable of *host*, or plug it in."""
        await in_thread(lambda: _ask(self._process, f"{host} {state}\n"))

    def stop(self) -> None:
        """End the relays."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _ask(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text)
    process.stdin.flush()
    if not (answer := process.stdout.readline()):
        raise RuntimeError(f"the network of the rehearsal ended with {process.wait()}")
    return answer
