"""How patient a step is: the same inside a flow of Prefect's and outside one, and no server is needed to go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.local_prefect import ROOT

PLACES = pytest.mark.parametrize("place", ["inside", "outside"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with a server of its own saw; Prefect reads its settings once, so it is not imported here."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("policy_run.py")),
            str(tmp_path_factory.mktemp("prefect")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


@PLACES
def test_only_try_again_is_tried_again(seen: dict[str, Any], place: str) -> None:
    """Twice "not yet" is waited out; a refusal and an error of our own end the step at once."""
    assert seen[place]["third time"] == f"{place} third after 3"
    assert seen[place]["refused"] == "Refused after 1"
    assert seen[place]["own"] == "ValueError after 1"


@PLACES
def test_patience_has_an_end(seen: dict[str, Any], place: str) -> None:
    """After the first call and as many more as there are pauses, the error is the caller's."""
    assert seen[place]["again"] == "TryAgain after 4"


@PLACES
def test_nothing_is_remembered(seen: dict[str, Any], place: str) -> None:
    """The same step with the same values is done again, never answered from a cache."""
    assert seen[place]["same twice"] == [1, 2]


@PLACES
def test_a_step_that_hangs_is_ended_once(seen: dict[str, Any], place: str) -> None:
    """Its limit is not a reason to try again: nobody knows what it has done."""
    assert seen[place]["slow"] == "TimeoutError after 1"


def test_outside_a_flow_prefect_hears_nothing(seen: dict[str, Any]) -> None:
    """No flow run, no task run: the plain call."""
    assert seen["runs of outside"] == 0


def test_a_step_is_done_once_after_the_server_is_gone(seen: dict[str, Any]) -> None:
    """The flow goes on without it, and a refusal is still the step's own."""
    assert seen["after the server"] == {
        "before": "before",
        "done": "done",
        "refused": "no",
        "calls": {"before": 1, "done": 1, "refused": 1},
    }
