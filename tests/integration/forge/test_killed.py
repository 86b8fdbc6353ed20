"""The command dies in the middle, by SIGKILL or with its connection, and is typed again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.forge.hubs import Hub
from tests.integration.forge.stand_in import Fault


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A forge of its own."""
    with Hub.make(tmp_path) as made:
        yield made


def start(hub: Hub, *words: str) -> subprocess.Popen[str]:
    """`runbook pr` in a process of its own."""
    clone = ("--repository", str(hub.clone.folder))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "pr", *words, "-e", str(hub.file), *clone, "--yes"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the bound only ends a failed test."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("words", "call"), [(("open", "HEAD"), "POST"), (("merge",), "PUT")])
def test_a_command_that_was_killed_while_the_forge_did_it_is_typed_again(
    hub: Hub, words: tuple[str, ...], call: str
) -> None:
    """The pull request is opened, or merged, and nobody has heard of it: it is found, and not done again."""
    commit = hub.work()
    hub.make_good(commit)
    if call == "PUT":
        opened = start(hub, "open", "HEAD")
        said, _ = opened.communicate(timeout=180)
        assert opened.returncode == 0, said
    hub.forge.faults.append(Fault(method=call, path="", done=True, silent_seconds=30))
    first = start(hub, *words)
    until(lambda: bool(hub.forge.pulls[-1].merged if call == "PUT" else hub.forge.pulls))
    first.kill()
    first.communicate(timeout=60)
    again = start(hub, *words)
    said, _ = again.communicate(timeout=180)
    assert again.returncode == 0, said
    assert (len(hub.forge.pulls), hub.forge.count(call, "")) == (1, 1)
    assert hub.bare.count(hub.first, "main") == (1 if call == "PUT" else 0)
