"""The stories that people read about are those that a rehearsal can tell, with their exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from flows.cli.rehearse import STORIES
from rehearsal.story import Story

README = Path(__file__).parents[3] / "README.md"


def test_the_help_lists_every_story_with_its_exit_code() -> None:
    """In the order of the stories; a line ends with the number."""
    assert list(STORIES) == [story.value for story in Story]
    assert {name: int(end.split()[-1]) for name, end in STORIES.items()} == {
        story.value: story.exit_code for story in Story
    }


def test_the_readme_lists_every_story_with_its_exit_code() -> None:
    """One row for each."""
    listed = re.findall(
        r"^\| `([a-z-]+)` \| .* \| (\d+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [(name, int(code)) for name, code in listed] == [(story.value, story.exit_code) for story in Story]


def test_a_fault_comes_within_the_watch() -> None:
    """Else the story would end before it."""
    turns = [story.plot.turn for story in Story if story.plot.turn is not None]
    assert len(turns) == 3
    assert all(0 < turn.minute < 25 for turn in turns)
