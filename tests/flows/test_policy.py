"""The retries of a step: the same inside a Prefect flow and outside one, also after the server has stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.policy import BESIDE
from tests.flows.local_prefect import ROOT

PLACES = pytest.mark.parametrize("place", ["inside", "outside"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a process with its own server. Prefect reads its settings once, so it is not imported here."""
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
    results: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return results


@PLACES
def test_only_try_again_is_tried_again(results: dict[str, Any], place: str) -> None:
    """Two TryAgain errors are retried; a refusal and an error of our own end the step at once."""
    assert results[place]["third time"] == f"{place} third after 3"
    assert results[place]["refused"] == "Refused after 1"
    assert results[place]["own"] == "ValueError after 1"


@PLACES
def test_retries_have_an_end(results: dict[str, Any], place: str) -> None:
    """After the first call and one retry for each pause, the caller gets the error."""
    assert results[place]["again"] == "TryAgain after 4"


@PLACES
def test_a_database_that_is_away_is_waited_for_by_every_step(results: dict[str, Any], place: str) -> None:
    """The patience belongs to the error: a step without any retry waits as well, and none is used up."""
    assert results[place]["back in time"] == 6


@PLACES
def test_waiting_for_the_database_has_an_end(results: dict[str, Any], place: str) -> None:
    """After the first call and one for each pause the caller gets the error: it is not retried once more."""
    assert results[place]["away"] == "DatabaseDown after 7"


@PLACES
def test_nothing_is_remembered(results: dict[str, Any], place: str) -> None:
    """The same step with the same arguments runs again; nothing is cached."""
    assert results[place]["same twice"] == [1, 2]


@PLACES
def test_a_step_that_hangs_is_ended_once(results: dict[str, Any], place: str) -> None:
    """A timeout is not retried, because the outcome of the call is unknown."""
    assert results[place]["slow"] == "TimeoutError after 1"


@PLACES
def test_a_step_without_a_limit_goes_on(results: dict[str, Any], place: str) -> None:
    """The looks beside a phase last as long as the phase: after 20 minutes of a drain it was held for their timeout."""
    assert results[place]["without end"] == "went on"
    assert BESIDE.limit_seconds is None


def test_a_signal_raises_nothing_in_the_middle_of_the_work(results: dict[str, Any]) -> None:
    """SIGTERM is noted for the release to decide. Prefect's own handler would raise an error in whatever task runs."""
    assert results["terminated"] == {"work": "went on", "handler": True}


def test_outside_a_flow_prefect_is_not_called(results: dict[str, Any]) -> None:
    """No flow run, no task run: the plain call."""
    assert results["runs of outside"] == 0


def test_a_step_is_done_once_after_the_server_is_gone(results: dict[str, Any]) -> None:
    """The flow continues without the server, and a refusal is still raised by the step."""
    assert results["after the server"] == {
        "before": "before",
        "done": "done",
        "refused": "no",
        "calls": {"before": 1, "done": 1, "refused": 1},
    }


def test_a_phase_is_a_run_below_its_release(results: dict[str, Any]) -> None:
    """Each phase ends in a state with its sentence: what the gate stops is no crash, and what crashed says so."""
    phases = results["phases"]
    assert phases["below the root"]
    assert phases["root"] == [
        "release 2025-11-14.3 bbbbbbb to small",
        ["2025-11-14.3", "bbbbbbb", "small"],
        "Completed",
    ]
    passed, not_passed, held, raised, stopped = phases["states"]
    assert passed == ["COMPLETED", "Completed", "58 of 58 completed"]
    assert not_passed == ["FAILED", "NotPassed", "9 of 16 failed"]
    assert held == ["COMPLETED", "Held", "held by ops-a"]
    assert raised == ["FAILED", "Failed", "ZeroDivisionError: of the phase"]
    assert stopped[:2] == ["CRASHED", "Crashed"]
    assert "`runbook resume` goes on" in stopped[2]


def test_the_page_changes_nothing_of_a_phase(results: dict[str, Any]) -> None:
    """The caller gets what the work returns or raises, and can stop it."""
    phases = results["phases"]
    assert phases["passed"] is True
    assert phases["raised"] == "of the phase"
    assert phases["stopped"] is True


def test_a_dead_server_delays_no_phase(results: dict[str, Any]) -> None:
    """Prefect would try a server that is gone for minutes. A phase begins without its run, and the page is closed."""
    trial = results["page without a server"]
    assert trial["phase"] is True
    assert trial["took"] < 10
    assert trial["closed in"] < 30
