"""`runbook --help`: every command once, where a release manager looks for it, on one short line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flows.cli.db
import flows.cli.decide
import flows.cli.queue
import flows.cli.rehearse
import flows.cli.release
import flows.cli.serve
import flows.cli.status
import flows.cli.try_  # noqa: F401
from flows.cli.app import COMMAND_GROUPS, app


def test_every_command_is_in_one_group() -> None:
    """None is missing, none is there twice, and none is named that does not exist."""
    grouped = [name for commands in COMMAND_GROUPS.values() for name in commands]
    named = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == named | {group.name for group in app.registered_groups}


def test_the_overview_fits_and_begins_with_what_a_newcomer_can_try() -> None:
    """Eighty columns, one line for each command, the rehearsal first."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--help"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    grouped = [name for group in COMMAND_GROUPS.values() for name in group]
    told = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].isalpha()]
    assert [name for name in told if name in grouped] == grouped
    assert grouped[0] == "rehearse"


@pytest.mark.parametrize(
    ("words", "needle"),
    [((), "Try it:"), (("queue",), "count it by status"), (("--version",), "tds-runbook ")],
)
def test_whoever_only_asks_gets_an_answer(words: tuple[str, ...], needle: str) -> None:
    """The bare name, a group's bare name and the version are questions: answered on stdout, with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert needle in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("  ") and line.endswith("...")]
