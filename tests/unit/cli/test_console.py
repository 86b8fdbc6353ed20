"""The console: colour and redrawing on a terminal, and neither with --plain."""

from __future__ import annotations

import pytest

from flows.cli.output import console


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output as on a terminal with all features."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.usefixtures("on_a_terminal")
def test_plain_neither_moves_nor_colours_on_a_terminal() -> None:
    """The view is redrawn only on a terminal, so a plain console never counts as one."""
    assert not console(plain=True).is_terminal
    assert console(plain=True).color_system is None


@pytest.mark.usefixtures("on_a_terminal")
def test_a_terminal_is_used_without_plain() -> None:
    """The check above does not pass because no console counts as a terminal."""
    assert console().is_terminal
    assert console().color_system is not None
