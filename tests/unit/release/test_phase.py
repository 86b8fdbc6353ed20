"""The machine of a release: drawing, code and sets agree, and every road leads to an end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handlers.errors import ExitCode
from handlers.release.phase import EXIT_CODES, FINISHED, LIVE, NEXT, Phase, exit_code, short

DRAWING = Path(__file__).parents[3] / "docs" / "state_machine.md"
_ARROW = re.compile(r"^\s*(\w+) --> (\w+)", re.MULTILINE)


def drawn() -> set[tuple[str, str]]:
    """The arrows of the drawing, without the dots at its ends."""
    text = DRAWING.read_text(encoding="utf-8")
    return {arrow for arrow in _ARROW.findall(text) if "[*]" not in arrow}


def test_the_drawing_shows_exactly_the_moves_that_the_code_allows() -> None:
    """A move added in one place only is found here."""
    assert drawn() == {(str(phase), str(to)) for phase, moves in NEXT.items() for to in moves}


def test_the_drawing_ends_exactly_in_the_phases_where_nothing_more_happens_by_itself() -> None:
    """The final dots of the drawing are the code's finished phases."""
    text = DRAWING.read_text(encoding="utf-8")
    ends = set(re.findall(r"^\s*(\w+) --> \[\*\]", text, re.MULTILINE))
    assert ends == {str(phase) for phase in FINISHED}


def test_every_phase_is_explained() -> None:
    """The table below the drawing has a row for each phase."""
    text = DRAWING.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == {str(phase) for phase in Phase}


def test_every_phase_has_its_moves() -> None:
    """No phase is forgotten in the table."""
    assert set(NEXT) == set(Phase)


@pytest.mark.parametrize("phase", sorted(Phase))
def test_every_phase_can_reach_an_end(phase: Phase) -> None:
    """From anywhere there is a road to a finished phase."""
    reached, edge = {phase}, {phase}
    while edge:
        edge = {to for one in edge for to in NEXT[one]} - reached
        reached |= edge
    assert reached & FINISHED


@pytest.mark.parametrize("phase", sorted(LIVE - {Phase.ROLLING_BACK}))
def test_every_live_phase_can_be_rolled_back(phase: Phase) -> None:
    """Whatever has begun to change hosts can be undone at once."""
    assert Phase.ROLLING_BACK in NEXT[phase]


def test_the_page_names_exactly_the_live_phases() -> None:
    """What the text calls live is what the code does; of these only a held release has no lock."""
    text = DRAWING.read_text(encoding="utf-8")
    sentence = re.search(r"Live phases are (.*?);", text, re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == {str(phase) for phase in LIVE}
    locked = re.findall(r"^\| `(\w+)` \|.*\| yes \| \d \|$", text, re.MULTILINE)
    assert set(locked) == {str(phase) for phase in LIVE - {Phase.HELD}}


def test_live_and_finished_do_not_meet() -> None:
    """A release that owns its environment is not finished."""
    assert not LIVE & FINISHED


def test_only_a_live_release_is_held() -> None:
    """Nothing that has not begun, or has ended, can be held."""
    assert {phase for phase in Phase if Phase.HELD in NEXT[phase]} == LIVE - {Phase.HELD, Phase.ROLLING_BACK}


@pytest.mark.parametrize("phase", sorted(Phase))
def test_only_success_is_exit_zero(phase: Phase) -> None:
    """Scripts branch on this: anything but a success is not 0, anything unfinished is held."""
    assert (exit_code(phase) is ExitCode.GOOD) is (phase is Phase.SUCCEEDED)
    assert (exit_code(phase) is ExitCode.HELD) is (phase not in EXIT_CODES)
    assert set(EXIT_CODES) == FINISHED


@pytest.mark.parametrize(
    ("revision", "shown"),
    [("3eb4a0e201" * 4, "3eb4a0e"), ("3eb4a0e201", "3eb4a0e"), ("v2025.11", "v2025.11"), (None, "unknown")],
)
def test_a_revision_is_shown_in_one_length(revision: str | None, shown: str) -> None:
    """Seven digits of a commit, and the whole name of what is none."""
    assert short(revision) == shown
