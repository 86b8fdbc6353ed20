"""`runbook --help`: every command once, in its group, on one short line."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.app import COMMAND_GROUPS, MODULES, app
from handlers.environment.advice import WITHOUT_ENVIRONMENT

for _module in MODULES:
    import_module(f"flows.cli.{_module}")


def test_every_command_is_in_one_group() -> None:
    """No command is missing, listed twice, or listed without existing."""
    grouped = [name for commands in COMMAND_GROUPS.values() for name in commands]
    named = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback and not command.hidden
    }
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == named | {group.name for group in app.registered_groups}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lift", "unblock"),
        ("queue lift", "queue unblock"),
        ("queue limit", "queue throttle"),
        ("queue unlimit", "queue unthrottle"),
    ],
)
def test_a_name_of_before_still_works_and_is_not_listed(old: str, new: str) -> None:
    """It takes what the new name takes: scripts that have it go on."""

    def found(words: str) -> Any:
        command: Any = get_command(app)
        for word in words.split():
            command = command.get_command(None, word)
        return command

    before, now = found(old), found(new)
    assert (before.hidden, now.hidden) == (True, False)
    assert [each.opts for each in before.params] == [each.opts for each in now.params]
    assert before.help == now.help


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


def test_a_command_without_environment_is_known_to_the_advice() -> None:
    """What we advise gets `-e`: a command that does not take it would fail as printed."""

    def commands(group: Any) -> list[Any]:
        each = [group.get_command(None, name) for name in group.list_commands(None)]
        return [found for one in each for found in (commands(one) if hasattr(one, "commands") else [one])]

    root: Any = get_command(app)
    lacking = {
        name
        for name in root.list_commands(None)
        if (one := root.get_command(None, name))
        for command in (commands(one) if hasattr(one, "commands") else [one])
        if not any("-e" in parameter.opts for parameter in command.params)
    }
    assert lacking <= WITHOUT_ENVIRONMENT


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


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ro", ["rollback"]),
        ("li", []),
        ("status -e st", ["staging"]),
        ("status -e other", []),
        ("queue th", ["throttle"]),
        ("nonsense th", []),
    ],
)
def test_a_shell_completes_commands_and_environments(
    words: str, completed: list[str], tmp_path: Path
) -> None:
    """No name of before is offered, and a word that is none completes to nothing, without an error on the terminal."""
    for name in ("staging", "production", "reference"):
        (tmp_path / f"{name}.toml").touch()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("runbook"))],
        env={
            **os.environ,
            "_RUNBOOK_COMPLETE": "complete_bash",
            "COMP_WORDS": f"runbook {words}",
            "COMP_CWORD": str(len(words.split())),
            "RUNBOOK_ENVIRONMENTS": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (completed, "")
