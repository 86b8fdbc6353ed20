"""Twenty hosts: released in groups, taken back together, also when one of them dies in the middle."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fault_runs import rehearse

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

FLEET = ("--hosts", "20")


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of the user's state and of the target."""
    with tempfile.TemporaryDirectory(prefix="tds-s-") as folder:
        yield Path(folder).resolve()


def test_twenty_hosts_get_a_good_revision(home: Path) -> None:
    """One alone, then groups; every host runs the revision at the end."""
    run = rehearse(home, "good", options=FLEET)
    run.assert_ends_as_without()
    assert len(run.result["hosts"]) == 20


def test_twenty_hosts_go_back_together(home: Path) -> None:
    """Every one is back, and verified."""
    run = rehearse(home, "treacherous", options=FLEET)
    run.assert_ends_as_without()
    assert set(run.result["hosts"].values()) == {run.result["revisions"]["broken"]}


@pytest.mark.parametrize("fault", ["host-away@activate/web-10:200", "host-reboot@activate/web-10:30"])
def test_a_host_that_dies_during_the_deploy_leaves_no_mixed_fleet(home: Path, fault: str) -> None:
    """Back for a minute or more: the whole fleet goes back, the dead host as soon as it can. Back soon: it goes on."""
    run = rehearse(home, "good", fault, options=FLEET)
    run.assert_injected()
    run.assert_ends()
    assert len(set(run.result["hosts"].values())) == 1
    if "host-away" in fault:
        assert run.exit_status == 2
