"""What a document tells people to type is a command of ours, with options that it has."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.app import MODULES, app

for _module in MODULES:
    import_module(f"flows.cli.{_module}")

DOCS = Path(__file__).parents[3] / "docs"
_TYPED = re.compile(r"`runbook ([^`]+)`|^ {4}(?:\S+ && )?runbook ([^#\n&]+)", re.MULTILINE)


def typed(page: str) -> list[str]:
    """Every command in a page, between backticks or in a block."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return sorted({(one or other).strip() for one, other in _TYPED.findall(text)})


PAGES = ("from-shell.md", "runbook.md")


@pytest.mark.parametrize("command", sorted({command for page in PAGES for command in typed(page)}))
def test_what_a_page_tells_people_to_type_can_be_typed(command: str) -> None:
    words = shlex.split(command)
    found: Any = get_command(app)
    while hasattr(found, "commands") and words and (sub := found.get_command(None, words[0])) is not None:
        found, words = sub, words[1:]
    assert not hasattr(found, "commands") or not words, f"there is no command {command!r}"
    context = found.make_context(
        found.name, [*words, *([] if "-e" in words else ["-e", "production"])], resilient_parsing=False
    )
    assert context is not None


def test_the_page_has_commands() -> None:
    """Else nothing was tried."""
    assert len(typed("from-shell.md")) > 30
