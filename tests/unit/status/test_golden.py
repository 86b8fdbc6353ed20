"""The live view at 80 columns, with and without colour, of one moment of each phase; and the same from its JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from flows.cli.follow import colored
from flows.cli.progress import Progress
from handlers.database.jsonable import as_json
from handlers.release.phase import Phase
from handlers.status.lines import lines
from handlers.status.view import StatusView
from tests.unit.status.snapshots import MOMENTS, view

GOLDEN = Path(__file__).parent / "golden"
VIEW = TypeAdapter(StatusView)
WITHOUT_COLOUR, IN_COLOUR = ".txt", ".colour.txt"


def text_of(moment: str) -> str:
    """The text without colour."""
    return "\n".join(lines(view(moment), 80)) + "\n"


def colour_of(moment: str) -> str:
    """The text as a terminal of 80 columns gets it, with each escape character as ^."""
    out = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", soft_wrap=True)
    out.print(colored(view(moment)), end="")
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().replace("\x1b", "^")


def rebuilt(shown: StatusView) -> StatusView:
    """The view as a program that reads the JSON has it."""
    return VIEW.validate_python(json.loads(as_json(shown)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_view_of_each_phase_is_the_golden_one(moment: str) -> None:
    """Write both anew with `python -m tests.unit.status.test_golden`, and read the difference."""
    assert text_of(moment) == (GOLDEN / f"{moment}{WITHOUT_COLOUR}").read_text(encoding="utf-8")
    assert colour_of(moment) == (GOLDEN / f"{moment}{IN_COLOUR}").read_text(encoding="utf-8")


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_field_of_the_text_is_in_the_json(moment: str) -> None:
    """Text, colour and progress are the same when they are made of nothing but the JSON."""
    shown = view(moment)
    assert rebuilt(shown) == shown
    assert lines(rebuilt(shown)) == lines(shown)
    assert colored(rebuilt(shown)) == colored(shown)
    assert Progress().lines(rebuilt(shown)) == Progress().lines(shown)


@pytest.mark.parametrize("moment", MOMENTS)
def test_colour_changes_no_character(moment: str) -> None:
    """The text is whole without colour."""
    assert colored(view(moment)).plain == text_of(moment)


def test_a_field_that_json_lacks_would_be_seen() -> None:
    """The comparison above finds a missing field: it does not pass by looking at nothing."""
    shown = view("deploying")
    for name in ("waits", "hosts", "total_seconds", "phase_seconds", "usual_total_seconds"):
        plain = json.loads(as_json(shown))
        del plain[name]
        assert lines(VIEW.validate_python(plain)) != lines(shown), name


def test_every_phase_has_its_moment() -> None:
    """A new phase needs a golden view."""
    assert {view(moment).release.phase for moment in MOMENTS} == set(Phase)  # type: ignore[union-attr]
    assert {file.name for file in GOLDEN.iterdir()} == {
        f"{moment}{kind}" for moment in MOMENTS for kind in (WITHOUT_COLOUR, IN_COLOUR)
    }


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_too_wide(moment: str, width: int) -> None:
    """Whatever the phase."""
    assert max(map(len, lines(view(moment), width))) <= width


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_view_fits_a_terminal_of_24_lines(moment: str) -> None:
    """What runs and what is waited for stays; what has passed goes first."""
    whole, low = lines(view(moment)), lines(view(moment), 80, 23)
    assert len(low) <= 23
    kept = [line.removesuffix(" ...") for line in low]
    assert [line for line in whole if line.startswith("Waits")][:1] == [
        line for line in kept if line.startswith("Waits")
    ]
    running = [line for line in whole if "[running]" in line]
    assert all(any(line.startswith(each[:60]) for line in kept) for each in running)


def test_a_watch_without_a_rehearsal_does_not_speak_of_runbook_time() -> None:
    """In production there is one time."""
    assert "runbook minute" not in text_of("watching")
    assert "all else is real" not in text_of("watching")
    assert "runbook minute 25 of 30" in text_of("rehearsed")
    assert "all else is real" in text_of("rehearsed")


def test_without_a_history_nothing_is_usual() -> None:
    """A first release has durations, and no word about usual ones."""
    made = MOMENTS["deploying"]()
    from handlers.release.usual import UsualSteps
    from handlers.status.assemble import assemble

    first = replace(made, plan=replace(made.plan, usual=None, usual_steps=UsualSteps()))
    text = "\n".join(lines(assemble(first)))
    assert "usual" not in text
    assert "web-1 [done]    switch   7.4 s" in text


if __name__ == "__main__":
    for name in MOMENTS:
        (GOLDEN / f"{name}{WITHOUT_COLOUR}").write_text(text_of(name), encoding="utf-8")
        (GOLDEN / f"{name}{IN_COLOUR}").write_text(colour_of(name), encoding="utf-8")
