"""The machine of a release: drawing, code and sets agree, and every road leads to an end."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.errors import ExitCode, Refused
from handlers.release.decisions import Verb, raise_unless_allowed
from handlers.release.phase import EXIT_CODES, FINISHED, LIVE, NEXT, Phase, Release, exit_code, short

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
    text = DRAWING.read_text(encoding="utf-8").partition("\n## Commands\n")[0]
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


def commands() -> dict[tuple[Verb, Phase], str]:
    """The cells of the table of commands."""
    table = DRAWING.read_text(encoding="utf-8").partition("\n## Commands\n")[2]
    rows = [re.split(r" *\| *", row)[1:-1] for row in re.findall(r"^\|.*\|$", table, re.MULTILINE)]
    verbs = [Verb(name) for name in rows[0][1:]]
    return {
        (verb, Phase(row[0].strip("`"))): cell
        for row in rows[2:]
        for verb, cell in zip(verbs, row[1:], strict=True)
    }


def in_phase(phase: Phase, resume_phase: Phase | None = None) -> Release:
    """A release in a phase."""
    now = datetime.now(UTC)
    return Release(
        id="2025-11-14.3",
        environment="staging",
        from_revision="a" * 40,
        to_revision="b" * 40,
        requested_by="ops-a",
        phase=phase,
        resume_phase=resume_phase,
        token=None,
        speed=1,
        reason="",
        created_at=now,
        finished_at=None,
    )


def test_every_command_is_defined_in_every_phase() -> None:
    """No cell is missing: whatever a person types in whatever phase, the page says what happens."""
    assert commands().keys() == {(verb, phase) for verb in Verb for phase in Phase}
    assert all(commands().values())


@pytest.mark.parametrize("phase", sorted(Phase))
@pytest.mark.parametrize("verb", sorted(Verb))
def test_a_command_is_refused_exactly_where_the_page_says_so(verb: Verb, phase: Phase) -> None:
    """The refusal names the release, its phase, and what can be done instead."""
    run = in_phase(phase, Phase.WATCHING if phase is Phase.HELD else None)
    # A rollback ends what has not started, and takes back what lies below: it is refused for this release itself.
    is_refused = commands()[verb, phase] == "refused" or commands()[verb, phase].startswith("ended;")
    if not is_refused:
        raise_unless_allowed(verb, run)
        return
    with pytest.raises(Refused, match=f"release {run.id} is {phase}: "):
        raise_unless_allowed(verb, run)


@pytest.mark.parametrize("stopped_at", [Phase.DEPLOYING, Phase.PROBING])
def test_a_proof_that_the_hosts_run_the_revision_is_never_skipped(stopped_at: Phase) -> None:
    """Held in its deploy or its probe, a release is not let through."""
    with pytest.raises(Refused, match=f"is held while {stopped_at}: that phase is never skipped"):
        raise_unless_allowed(Verb.SKIP, in_phase(Phase.HELD, stopped_at))
