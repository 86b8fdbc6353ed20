"""The controller is killed at every point that the code has, and its release is carried on to the same end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.kill_points import kinds, points
from tests.acceptance.kill_runs import kill_at

pytestmark = pytest.mark.timeout(900)

GOOD = ("good",)
BACK = ("treacherous",)
SYNTHETIC = ("empty",)
HELD = ("failed-only",)
ENDS = {"good": "succeeded", "empty": "succeeded", "treacherous": "rolled_back", "failed-only": "held"}

NOT_KILLED = {
    "handlers.queue.claim.": "the ERP's workers",
    "handlers.queue.room.": "the ERP's workers",
    "handlers.queue.settle.": "the ERP's workers",
    "handlers.queue.wake.": "the ERP's workers",
    "handlers.worker.": "the ERP's workers",
    "handlers.queue.limits.": "a person's command of one transaction (`runbook queue limit`)",
    "handlers.release.ledger.records.lift": "a person's command of one transaction (`runbook lift`)",
    "handlers.release.ledger.releases.begin": "the command that plans, before there is a release to carry on",
    "handlers.release.ledger.dead_letters.plan_events": "in the transaction that plans",
    "step tasks.plan.make": "the flow of the Prefect page, before there is a release to carry on",
    "step tasks.plan.record": "the flow of the Prefect page, before there is a release to carry on",
}
"""Points that no driver of a release passes, by the begin of their names, and who does."""


def story_of(point: str) -> tuple[str, ...]:
    """The story, and the faults, in which a driver passes the point."""
    if "back-" in point or "rollback" in point or "roll" in point or "quarantine" in point:
        return BACK
    if "queue.insert" in point:
        return SYNTHETIC
    if "held" in point or point.endswith("ledger.hold"):
        return HELD
    return GOOD


KILLED = [point for point in points() if not any(name in point for name in NOT_KILLED)]
SAMPLE = ["during operation activate"]


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-k-") as folder:
        yield Path(folder).resolve()


@pytest.mark.soak
@pytest.mark.parametrize("point", KILLED)
async def test_a_release_survives_the_death_of_its_controller_at_any_point(home: Path, point: str) -> None:
    """It ends as without, on hosts, in the ledger and in the queue. A point that is never passed fails too."""
    story, *faults = story_of(point)
    run = await kill_at(point, home, story, *faults)
    assert run.died, f"no driver of the story {story} passes this point: name another story, or who passes it"
    assert run.wrong == (), run.log
    assert run.phase == ENDS[story], run.log


def test_every_point_that_is_not_killed_says_who_passes_it() -> None:
    """The list of exceptions names only points that exist."""
    assert [name for name in NOT_KILLED if not any(name in point for point in points())] == []
    assert len(KILLED) > 100
    assert {"activate", "back-activate"} <= set(kinds())
