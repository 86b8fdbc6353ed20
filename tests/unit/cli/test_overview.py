"""`runbook --help`: every command once, in its group, on one short line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flows.cli.ask
import flows.cli.db
import flows.cli.decide
import flows.cli.examine
import flows.cli.explain
import flows.cli.guard
import flows.cli.logs
import flows.cli.look
import flows.cli.notify
import flows.cli.queue
import flows.cli.rehearse
import flows.cli.release
import flows.cli.serve
import flows.cli.status
import flows.cli.sync
import flows.cli.try_
import flows.cli.verify
import flows.cli.webhooks
import flows.cli.workers  # noqa: F401
from flows.cli.app import COMMAND_GROUPS, MODULES, app


def test_every_command_is_in_one_group() -> None:
    """No command is missing, listed twice, or listed without existing."""
    grouped = [name for commands in COMMAND_GROUPS.values() for name in commands]
    named = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == named | {group.name for group in app.registered_groups}


def test_every_command_is_found_in_its_module() -> None:
    """Only the module of the command that is run is imported: the table of the modules names the right one."""
    named = {
        (command.callback.__module__, command.name or command.callback.__name__)
        for command in app.registered_commands
        if command.callback
    }
    groups = {
        (command.callback.__module__, group.name)
        for group in app.registered_groups
        if group.typer_instance
        for command in group.typer_instance.registered_commands
        if command.callback
    }
    assert named | groups == {
        (f"flows.cli.{module}", name) for module, names in MODULES.items() for name in names
    }


def test_help_and_version_import_no_command() -> None:
    """They answer at once: the database, SSH and the environment's settings take a second to import."""
    program = "import sys; from flows.cli import main\ntry: main()\n"
    program += (
        "finally: print(sorted({'sqlalchemy', 'paramiko', 'pydantic'} & sys.modules.keys()), file=sys.stderr)"
    )
    for word in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, word], capture_output=True, text=True, check=True
        )
        assert done.stderr == "[]\n"


def test_the_overview_fits_and_begins_with_what_a_newcomer_can_try() -> None:
    """Eighty columns, one line for each command, the rehearsal first."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--help"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    grouped = [name for group in COMMAND_GROUPS.values() for name in group]
    listed = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].isalpha()]
    assert [name for name in listed if name in grouped] == grouped
    assert grouped[0] == "rehearse"


@pytest.mark.parametrize(
    ("words", "needle"),
    [((), "Try it:"), (("queue",), "count it by status"), (("--version",), "tds-runbook ")],
)
def test_help_and_version_go_to_stdout(words: tuple[str, ...], needle: str) -> None:
    """A bare command or group name prints its help, --version the version: on stdout, with exit code 0."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert needle in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("  ") and line.endswith("...")]
