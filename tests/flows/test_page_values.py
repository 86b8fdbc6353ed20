"""What the Prefect page shows of a release, from the view of its ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flows.phase_run import state_after, title_of
from handlers.release.phase import Phase, Release
from handlers.status.view import HostState, HostView, StatusView, StepState, StepView
from tasks.page import key_of
from tasks.page_artifacts import fenced, host_rows, percent_of

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
RUN = Release(
    id="2026-11-30.1",
    environment="production",
    from_revision="a" * 40,
    to_revision="b" * 40,
    requested_by="ops-a",
    phase=Phase.DRAINING,
    resume_phase=None,
    token=1,
    speed=1.0,
    reason="",
    created_at=AT,
    finished_at=None,
)


def run_in(phase: Phase, reason: str = "because") -> Release:
    """The release in another phase."""
    return replace(RUN, phase=phase, reason=reason)


def view(phase: Phase, state: StepState = StepState.RUNNING, **fields: Any) -> StatusView:
    """A view of a release in a phase."""
    step = StepView(name="x", state=state, at=AT, sentence="", phase=phase, started_at=AT)
    return StatusView(environment="production", at=AT, release=run_in(phase), steps=(step,), **fields)


@pytest.mark.parametrize(
    ("before", "after", "type_", "name"),
    [
        (Phase.DRAINING, Phase.WATCHING, "COMPLETED", "Completed"),
        (Phase.WATCHING, Phase.SUCCEEDED, "COMPLETED", "Completed"),
        (Phase.DRAINING, Phase.ROLLING_BACK, "FAILED", "NotPassed"),
        (Phase.DEPLOYING, Phase.REFUSED, "FAILED", "Refused"),
        (Phase.CANARY, Phase.HELD, "COMPLETED", "Held"),
        (Phase.CANARY, Phase.ABORTED, "COMPLETED", "Aborted"),
        (Phase.ROLLING_BACK, Phase.ROLLED_BACK, "COMPLETED", "Completed"),
        (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED, "FAILED", "RollbackFailed"),
    ],
)
def test_the_state_of_a_phase_says_how_it_ended(before: Phase, after: Phase, type_: str, name: str) -> None:
    """A phase that the gate ends is no crash, and no event of it starts the automation for crashes."""
    state = state_after(run_in(before), run_in(after))
    assert (state.type.value, state.name, state.message) == (type_, name, "because")


@pytest.mark.parametrize("after", [Phase.HELD, Phase.ROLLING_BACK, Phase.ABORTED])
def test_a_phase_that_a_person_cancelled_ends_as_cancelled(after: Phase) -> None:
    """Whatever becomes of the release: the page shows what the person did."""
    ended = run_in(after, "cancelled on the Prefect page while it was draining")
    assert state_after(run_in(Phase.DRAINING), ended).name == "Cancelled"


def test_a_rollback_after_a_cancel_is_not_itself_cancelled() -> None:
    """It did its work: only the phase before it was cancelled."""
    ended = run_in(Phase.ROLLED_BACK, "back; because cancelled on the Prefect page while it was draining")
    assert state_after(run_in(Phase.ROLLING_BACK), ended).name == "Completed"


def test_phases_are_named_for_people() -> None:
    """A deploy names the revision that comes, a rollback the one that returns."""
    assert title_of(run_in(Phase.DEPLOYING)) == "deploy bbbbbbb to production"
    assert title_of(run_in(Phase.ROLLING_BACK)) == "roll back production to aaaaaaa"
    assert title_of(run_in(Phase.WATCHING)) == "watch"


@pytest.mark.parametrize(
    ("settled", "set_aside", "percent"), [(0, 0, 0.0), (29, 0, 50.0), (50, 8, 100.0), (60, 8, 100.0)]
)
def test_a_drain_is_over_when_each_letter_is_settled_or_set_aside(
    settled: int, set_aside: int, percent: float
) -> None:
    """What is left as it is counts as done, and nothing is above 100 %."""
    seen = view(Phase.DRAINING, events_planned=58, events_settled=settled, events_set_aside=set_aside)
    assert percent_of(seen, Phase.DRAINING) == percent


def test_a_watch_that_goes_on_is_never_shown_as_over() -> None:
    """It may be extended: 100 % is shown when it has ended."""
    assert percent_of(view(Phase.WATCHING, running_seconds=900, window_seconds=1800), Phase.WATCHING) == 50.0
    assert percent_of(view(Phase.WATCHING, running_seconds=2400, window_seconds=1800), Phase.WATCHING) == 99.0
    assert percent_of(view(Phase.WATCHING, StepState.DONE), Phase.WATCHING) == 100.0


def test_without_numbers_there_is_no_bar() -> None:
    """A phase that has not begun, has nothing to drain, or knows no window shows no progress."""
    assert percent_of(view(Phase.DRAINING), Phase.WATCHING) is None
    assert percent_of(view(Phase.DRAINING), Phase.DRAINING) is None
    assert percent_of(view(Phase.WATCHING, running_seconds=5), Phase.WATCHING) is None


def test_a_host_is_a_row_without_line_breaks() -> None:
    """Its note comes from the host: a table's cell stays one line."""
    host = HostView(
        name="web-1",
        want="b" * 40,
        have=None,
        good=None,
        note="bad\nnews",
        seen_at=None,
        state=HostState.NOT_OK,
    )
    [row] = host_rows(view(Phase.DEPLOYING, hosts=(host,)))
    assert row == {
        "host": "web-1",
        "wanted": "bbbbbbb",
        "runs": "unknown",
        "state": "not ok",
        "note": "bad news",
    }


def test_a_key_has_only_what_prefect_accepts() -> None:
    """Lower case, digits and dashes, whatever an environment is called."""
    assert key_of("hosts", "EU_west.2", "2026-11-30.1") == "hosts-eu-west-2-2026-11-30-1"


def test_a_commit_cannot_leave_its_fence() -> None:
    """A subject with a fence of its own stays text."""
    lines = fenced("a\n`````\n# b").splitlines()
    assert lines == ["``````text", "a", "`````", "# b", "``````"]
