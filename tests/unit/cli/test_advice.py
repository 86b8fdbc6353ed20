"""What a report tells people to type is a command of ours, with options that it has."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.app import MODULES, app
from handlers.environment.bars import CHECKS
from handlers.measurements.measurement import compared
from handlers.release.phase import Phase
from handlers.report.verdict import HostState, next_steps, verify
from tests.unit.report.test_verdict import release

for _module in MODULES:
    import_module(f"flows.cli.{_module}")

HOSTS = [HostState(name="web-1", revision="a" * 40), HostState(name="web-2", revision="b" * 40)]


def advice() -> list[str]:
    """Everything that a report may tell, for checks that are all broken and after each end."""
    found = verify("shop", [compared(name, 1, 0, "", name) for name in CHECKS], HOSTS)
    steps = list(found.next)
    for phase in (Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.HELD):
        behind = "runbook drain -e shop --left-by 2026-11-29.1"
        steps += next_steps(
            release(phase), need="", left=1, left_behind=behind, quarantined=True, verification=found
        )
    return sorted({step.partition(" –")[0] for step in steps})


@pytest.mark.parametrize("command", advice())
def test_what_a_report_tells_to_type_is_understood(command: str) -> None:
    """A command that is refused at night is worse than none."""
    program, *words = shlex.split(command)
    assert program == "runbook"
    found: Any = get_command(app)
    while hasattr(found, "commands") and words and (sub := found.get_command(None, words[0])) is not None:
        found, words = sub, words[1:]
    # Raises a usage error for an option or argument that there is not.
    found.make_context(found.name, list(words))
