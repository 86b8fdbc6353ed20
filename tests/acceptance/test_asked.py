"""What people ask of a release while its controller runs it: hold, skip, abort and rollback in every phase."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.scenario_runs import Scenario, play

pytestmark = pytest.mark.timeout(1800)

SHORT = ("the watch took",)
"""A watch that is skipped is shorter than its window."""
QUARANTINED = ("is in quarantine, although",)
"""A person who asks for a rollback blames the revision, unless the command says otherwise."""
SPEED = 30.0
"""So slow that a command comes in the phase in which it was given: a watch takes a minute."""
CHANGED = ("activate", "probing", "canary", "draining", "watching")
"""Moments from which on a host has been changed."""

DONE = [
    *(
        Scenario(speed=SPEED, story="good", end="succeeded", asked=((at, "hold"),), then=("resume",))
        for at in CHANGED
    ),
    *(
        Scenario(speed=SPEED, story="good", end="succeeded", asked=((at, "skip"),), expected=SHORT)
        for at in CHANGED[2:]
    ),
    *(Scenario(speed=SPEED, story="good", end="rolled_back", asked=((at, "abort"),)) for at in CHANGED),
    *(
        Scenario(
            speed=SPEED, story="good", end="rolled_back", asked=((at, "rollback"),), expected=QUARANTINED
        )
        for at in CHANGED
    ),
    Scenario(speed=SPEED, story="good", end="rolled_back", asked=(("draining", "rollback --no-quarantine"),)),
    # A host keeps the preparation waiting, so that nothing has changed yet.
    Scenario(
        speed=SPEED,
        story="good",
        end="aborted",
        asked=(("prepare", "abort"),),
        faults=("host-away@prepare/web-2:12",),
    ),
    Scenario(speed=SPEED, story="failed-only", end="held", then=("hold",)),
    Scenario(speed=SPEED, story="failed-only", end="succeeded", then=("skip",), expected=SHORT),
    Scenario(speed=SPEED, story="failed-only", end="rolled_back", then=("abort",)),
    Scenario(speed=SPEED, story="failed-only", end="rolled_back", then=("rollback",), expected=QUARANTINED),
    Scenario(
        speed=SPEED,
        story="treacherous",
        end="rolled_back",
        asked=(("rolling_back", "rollback"),),
        faults=("host-away@rolling_back/web-2:20",),
    ),
]
REFUSED = [
    # A host that is away keeps the phase waiting until the command has come.
    Scenario(
        speed=SPEED,
        story="good",
        end="succeeded",
        asked=(("prepare", "skip"),),
        faults=("host-away@prepare/web-2:12",),
    ),
    *(
        Scenario(
            speed=SPEED,
            story="treacherous",
            end="rolled_back",
            asked=(("rolling_back", verb),),
            faults=("host-away@rolling_back/web-2:20",),
        )
        for verb in ("hold", "skip", "abort")
    ),
]
CODES = {"succeeded": 0, "rolled_back": 2, "held": 4, "aborted": 5}


def name(scenario: Scenario) -> str:
    """The commands of a scenario."""
    asked = [f"{verb}@{moment}" for moment, verb in scenario.asked]
    return "-".join([*asked, *scenario.then, scenario.story])


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-r-") as folder:
        yield Path(folder).resolve()


async def test_a_release_is_held_and_then_its_watch_is_skipped(home: Path) -> None:
    """The sample of what follows: it is held between two hosts, finished, and its watch is skipped by name."""
    scenario = Scenario(
        story="good",
        end="succeeded",
        # Asked while the first host is switched. It is away, so that this takes long enough.
        faults=("host-away@activate/web-1:6",),
        asked=(("activate", "hold"), ("watching", "skip")),
        then=("resume",),
        expected=SHORT,
        speed=20,
    )
    run = await play(home, scenario)
    assert run.wrong == (), run.log
    said = [(verb, done.stdout, done.stderr) for verb, done in run.commands.items()]
    assert {verb: done.returncode for verb, done in run.commands.items()} == {
        "hold": 4,
        "skip": 0,
        "resume": 0,
    }, said
    held, skipped = (json.loads(run.commands[verb].stdout.splitlines()[-1]) for verb in ("hold", "skip"))
    assert held["outcome"] == "held"
    assert "a test; 1 of 2 hosts are on" in held["reason"]
    assert "the workers of all hosts run" in held["reason"]
    assert skipped["outcome"] == "succeeded"
    assert skipped["reason"].startswith("skipped: ")


@pytest.mark.soak
@pytest.mark.parametrize("scenario", DONE, ids=name)
async def test_a_command_does_what_the_table_says(home: Path, scenario: Scenario) -> None:
    """Each cell of docs/state_machine.md to its end, on hosts, in the ledger and in the queue."""
    run = await play(home, scenario)
    assert run.wrong == (), run.log
    assert run.phase == scenario.end, run.log
    for verb, done in run.commands.items():
        expected = CODES["held"] if verb == "hold" else CODES[scenario.end]
        assert done.returncode == expected, f"{verb}: {done.stdout} {done.stderr}"


@pytest.mark.soak
@pytest.mark.parametrize("scenario", REFUSED, ids=name)
async def test_a_command_that_means_nothing_is_refused_and_changes_nothing(
    home: Path, scenario: Scenario
) -> None:
    """Exit code 5 with a sentence, and the release ends as without."""
    run = await play(home, scenario)
    assert run.wrong == (), run.log
    assert run.phase == scenario.end, run.log
    [(_, verb)] = scenario.asked
    assert run.commands[verb].returncode == 5, run.commands[verb].stdout
    assert "Traceback" not in run.commands[verb].stderr
