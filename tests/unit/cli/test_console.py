"""What a terminal is given, and what it is not given where somebody asked for plain lines."""

from __future__ import annotations

import pytest

from flows.cli.output import console


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output as on a terminal that can do everything."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.usefixtures("on_a_terminal")
def test_plain_neither_moves_nor_colours_on_a_terminal() -> None:
    """The view redraws itself on a terminal only, so a plain console is none, whatever it writes to."""
    assert not console(plain=True).is_terminal
    assert console(plain=True).color_system is None


@pytest.mark.usefixtures("on_a_terminal")
def test_a_terminal_is_seen_where_nobody_asked_for_plain_lines() -> None:
    """The check above does not pass because nothing is ever a terminal."""
    assert console().is_terminal
    assert console().color_system is not None
