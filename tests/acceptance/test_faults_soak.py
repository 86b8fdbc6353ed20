"""Every kind of fault at every moment that matters, in both directions: hosts, ledger and queue agree at the end.

`make test` has a sample of these in the stories. All of them take some hours of one core.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.faults import possible
from rehearsal.faults.fault import Kind
from tests.acceptance.fault_runs import rehearse

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3300)]

FORWARD = ("planned", "approved", "deploying", "probing", "canary", "draining", "watching")
OPERATIONS = ("prepare", "stop-workers", "activate", "start-workers")
BACK = ("rolling_back", *(f"back-{name}" for name in OPERATIONS))
DIRECTIONS = [
    *(("good", moment) for moment in (*FORWARD, *OPERATIONS)),
    *(("treacherous", moment) for moment in BACK),
]
SEEDS = range(int(os.environ.get("SOAK_SEEDS", "20")))
"""The variable SOAK_SEEDS sets how many random draws are tried for each story."""


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-s-") as folder:
        yield Path(folder).resolve()


def skip_if_impossible(*kinds: Kind) -> None:
    if missing := possible.impossible() & set(kinds):
        pytest.skip(f"this machine cannot do {', '.join(missing)}")


@pytest.mark.parametrize("seconds", [20, 360])
@pytest.mark.parametrize(
    ("story", "moment"), [*(("good", moment) for moment in FORWARD), ("treacherous", "rolling_back")]
)
def test_a_database_outage_in_any_phase_changes_nothing(
    home: Path, story: str, moment: str, seconds: int
) -> None:
    """Away for 20 s or six minutes, the release ends as it would have ended."""
    run = rehearse(home, story, f"database-away@{moment}:{seconds}")
    run.assert_injected()
    run.assert_ends_as_without()


@pytest.mark.parametrize(("story", "moments"), [("good", (*FORWARD, *OPERATIONS)), ("treacherous", BACK)])
@pytest.mark.parametrize("kind", ["database-away", "database-crash", "database-readonly", "database-login"])
def test_a_short_outage_in_every_phase_of_one_release_changes_nothing(
    home: Path, kind: str, story: str, moments: tuple[str, ...]
) -> None:
    """Two seconds at each moment of the same release, also in the middle of each operation."""
    rehearse(home, story, *(f"{kind}@{moment}:2" for moment in moments)).assert_ends_as_without()


@pytest.mark.parametrize(("story", "moment"), DIRECTIONS)
@pytest.mark.parametrize(
    "kind",
    [
        *("host-away", "host-refuses", "answers-lost", "login-refused"),
        *("host-reboot", "disk-full", "unit-hangs"),
    ],
)
def test_a_broken_host_leaves_no_doubt(home: Path, kind: str, story: str, moment: str) -> None:
    """The release ends as without the fault or on the previous revision, and every host runs what the ledger says."""
    skip_if_impossible(Kind(kind))
    run = rehearse(home, story, f"{kind}@{moment}")
    if story == "treacherous":
        run.assert_ends_as_without()
    else:
        run.assert_ends()


@pytest.mark.parametrize(("story", "moment"), DIRECTIONS)
@pytest.mark.parametrize(
    "kind", ["controller-killed", "prefect-killed", "second-manager", "environment-torn"]
)
def test_what_happens_to_the_controller_changes_nothing(
    home: Path, kind: str, story: str, moment: str
) -> None:
    """Killed and carried on, without its Prefect server, beside another manager, or with a torn file."""
    rehearse(home, story, f"{kind}@{moment}").assert_ends_as_without()


@pytest.mark.parametrize(
    ("story", "moment"),
    [("good", "activate"), ("good", "draining"), ("good", "watching"), ("treacherous", "rolling_back")],
)
@pytest.mark.parametrize("kind", ["controller-paused", "clock-jump", "environment-edited", "noisy-shell"])
def test_a_lasting_change_around_the_controller_changes_nothing(
    home: Path, kind: str, story: str, moment: str
) -> None:
    """Suspended for longer than its lock, with a clock that jumped, a host less in the file, or a noisy shell."""
    skip_if_impossible(Kind(kind))
    run = rehearse(home, story, f"{kind}@{moment}")
    run.assert_injected()
    run.assert_ends_as_without()


@pytest.mark.parametrize(
    ("story", "moment"),
    [
        *(("good", moment) for moment in (*OPERATIONS, "watching")),
        *(("treacherous", moment) for moment in BACK),
    ],
)
@pytest.mark.parametrize("kind", ["controller-killed", "host-away", "host-reboot", "disk-full", "unit-hangs"])
def test_the_strategy_releases_survives_the_same_faults(
    home: Path, kind: str, story: str, moment: str
) -> None:
    """A folder for each revision and one link: the same ends as with a checkout."""
    skip_if_impossible(Kind(kind))
    run = rehearse(home, story, f"{kind}@{moment}", options=("--strategy", "releases"))
    run.assert_ends()


@pytest.mark.parametrize("moment", ["deploying", "activate", "canary", "draining", "watching"])
def test_a_cancelled_run_is_no_half_release(home: Path, moment: str) -> None:
    """Cancel on the Prefect page: held, or rolled back where hosts were changed, and never a mixed fleet."""
    run = rehearse(home, "good", f"cancelled@{moment}")
    run.assert_injected()
    run.assert_ends()


@pytest.mark.parametrize("story", ["good", "treacherous"])
@pytest.mark.parametrize("seed", SEEDS)
def test_faults_by_chance_leave_no_doubt(home: Path, story: str, seed: int) -> None:
    """Three at once, drawn by a number that repeats them."""
    run = rehearse(home, story, options=("--faults", "3", "--seed", str(seed)))
    run.assert_ends()
