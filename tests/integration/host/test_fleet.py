"""The roll-out: no host is switched before all are prepared, each step is verified, and none runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from handlers.environment.model import Host
from handlers.errors import LockLost, LoginRefused
from handlers.host.fleet import roll_out
from handlers.host.health import FleetHealth
from handlers.host.operations import OperationOutcome
from handlers.host.state import read_state
from handlers.host.step import activate, prepare, stop_workers
from handlers.release.phase import Verdict
from tests.integration.host.ssh_target import Target, git
from tests.integration.host.units import (
    UNITS,
    Notes,
    always_healthy,
    change,
    deploy_keys,
    hosts_with_units,
    manage,
    pid,
    shells_of,
)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """Two hosts with units that run."""
    async with hosts_with_units(tmp_path) as target:
        yield target


async def test_a_deploy_prepares_all_stops_all_and_switches_one_by_one(target: Target) -> None:
    """The order: all prepare, all workers stop, one host is switched first, workers start last.

    Right before that the caller may hold the queue: the released workers must find it so.
    """
    sha, notes, probed = target.commit("second"), Notes(), []
    held_after: list[int] = []

    async def healthy(hosts: Sequence[Host]) -> FleetHealth:
        probed.append([host.name for host in hosts])
        assert await pid(target, "web-1", "tsh-erp-workers") == "0"
        return await always_healthy(hosts)

    async def hold() -> None:
        held_after.append(len(notes.intended()))

    before = await pid(target)
    async with shells_of(target) as shells:
        conclusion = await roll_out(shells, change(sha, notes), healthy, before_workers=hold)
        state = await read_state(shells[0])
    assert conclusion.verdict is Verdict.PASS, conclusion.sentence
    assert probed == [["web-1"], ["web-2"]]
    intended = notes.intended()
    assert sorted(intended[:2]) == ["prepare-web-1-1", "prepare-web-2-1"]
    assert sorted(intended[2:4]) == ["stop-workers-web-1-1", "stop-workers-web-2-1"]
    assert intended[4:6] == ["activate-web-1-1", "activate-web-2-1"]
    assert held_after == [6]
    assert sorted(intended[6:]) == ["start-workers-web-1-1", "start-workers-web-2-1"]
    assert target.head("web-1") == target.head("web-2") == sha
    assert await pid(target) not in ("0", before)
    assert await pid(target, "web-2", "tsh-erp-workers") != "0"
    assert state is not None
    assert (state.release, state.current, state.previous) == (
        "r1",
        sha,
        git("rev-parse", f"{sha}^", at=target.tree()),
    )


async def test_every_change_is_intended_before_and_confirmed_after(target: Target) -> None:
    """Each operation records its intention, then its outcome, and no shell script is in the ledger."""
    sha, notes = target.commit("second"), Notes()
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha, notes))
    for operation in notes.intended():
        mine = [word for word, line in notes.lines if line == f"r1-{operation}"]
        assert mine == ["intend", "done"]
    assert max(map(len, notes.commands)) < 400


async def test_the_same_change_again_does_nothing(target: Target) -> None:
    """A resumed release attaches to the finished operations and restarts nothing."""
    sha = target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        before = [await pid(target, name=name) for name in UNITS]
        again = await roll_out(shells, change(sha, token=2))
    assert again.verdict is Verdict.PASS
    assert [await pid(target, name=name) for name in UNITS] == before


async def test_a_controller_that_was_killed_is_followed_by_one_that_finishes(target: Target) -> None:
    """After a kill in the middle of the switch, the next controller attaches and continues."""
    sha = target.commit("second")
    slow = deploy_keys(after_activate=['echo "$REVISION" >>"$HOME/hook"; sleep 1'])
    async with shells_of(target, **slow) as shells:
        first = asyncio.create_task(roll_out(shells, change(sha)))
        async with asyncio.timeout(20):
            while not (target.hosts["web-1"] / "hook").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    async with shells_of(target, **slow) as shells:
        conclusion = await roll_out(shells, change(sha, token=2))
    assert conclusion.verdict is Verdict.PASS, conclusion.sentence
    for host in target.hosts:
        assert (target.hosts[host] / "hook").read_text() == f"{sha}\n"
        assert target.head(host) == sha


async def test_one_host_that_cannot_keeps_all_as_they_are(target: Target) -> None:
    """With a dirty tree on the second host, the workers of the first one keep running."""
    sha, old = target.commit("second"), target.head()
    (target.tree("web-2") / "app.txt").write_text("hand-made")
    before = [await pid(target, name=name) for name in UNITS]
    async with shells_of(target) as shells:
        conclusion = await roll_out(shells, change(sha))
    assert conclusion.verdict is Verdict.FAIL
    assert conclusion.touched_hosts is False
    assert "local changes" in conclusion.sentence
    assert "web-2" in conclusion.sentence
    assert target.head() == old
    assert [await pid(target, name=name) for name in UNITS] == before
    assert (target.tree("web-2") / "app.txt").read_text() == "hand-made"


async def test_an_unhealthy_first_host_keeps_the_others_from_the_revision(target: Target) -> None:
    """A failed probe of the first group ends the deploy."""
    sha, old = target.commit("second"), target.head()

    async def ill(_hosts: Sequence[Host]) -> FleetHealth:
        return FleetHealth(verdict=Verdict.FAIL, sentence="web-1: HTTP 503")

    async with shells_of(target) as shells:
        conclusion = await roll_out(shells, change(sha), ill)
        assert conclusion.verdict is Verdict.FAIL
        assert "HTTP 503" in conclusion.sentence
        assert (target.head("web-1"), target.head("web-2")) == (sha, old)


async def at_look(number: int, looks: list[int]) -> bool:
    """Whether a person has asked for a pause: from the look with this number on."""
    looks.append(number)
    return len(looks) >= number


@pytest.mark.parametrize(("number", "switched"), [(1, 0), (2, 0), (3, 1)])
async def test_a_pause_begins_no_further_group_and_leaves_no_worker_stopped(
    target: Target, number: int, switched: int
) -> None:
    """Before the workers stop, before the first group, and between two groups."""
    sha, old, notes = target.commit("second"), target.head(), Notes()
    before = [await pid(target, host, "tsh-erp-workers") for host in target.hosts]
    async with shells_of(target) as shells:
        paused = await roll_out(shells, change(sha, notes), always_healthy, partial(at_look, number, []))
        assert (paused.verdict, paused.paused) == (Verdict.INCONCLUSIVE, True), paused.sentence
        assert paused.touched_hosts is (number > 1)
        assert [target.head(host) for host in target.hosts] == [sha if switched else old, old]
        assert sum("activate" in operation for operation in notes.intended()) == switched
        after = [await pid(target, host, "tsh-erp-workers") for host in target.hosts]
        assert "0" not in after
        assert (after == before) is (number == 1)
        finished = await roll_out(shells, change(sha, notes, attempt=2), always_healthy)
    assert finished.verdict is Verdict.PASS, finished.sentence
    assert {target.head(host) for host in target.hosts} == {sha}
    assert "0" not in [await pid(target, host, "tsh-erp-workers") for host in target.hosts]


async def test_a_pause_finishes_the_switch_that_a_dead_controller_has_begun(target: Target) -> None:
    """The switch died as well. Its successor is asked to pause from the start: it leaves no host half switched."""
    sha, old = target.commit("second"), target.head()
    slow = deploy_keys(after_activate=['echo "$REVISION" >>"$HOME/hook"; sleep 1'])
    async with shells_of(target, **slow) as shells:
        first = asyncio.create_task(roll_out(shells, change(sha)))
        async with asyncio.timeout(20):
            while not (target.hosts["web-1"] / "hook").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    for process in ("pid", "work.pid"):
        number = (target.state() / "jobs/r1-activate-web-1-1" / process).read_text().split()[0]
        os.killpg(int(number), signal.SIGKILL)
    async with shells_of(target, **slow) as shells:
        paused = await roll_out(shells, change(sha, token=2), always_healthy, partial(at_look, 1, []))
    assert paused.paused, paused.sentence
    assert paused.sentence.startswith("1 of 2 hosts are on ")
    assert (target.head("web-1"), target.head("web-2")) == (sha, old)
    assert (target.hosts["web-1"] / "hook").read_text() == f"{sha}\n{sha}\n"
    assert "0" not in [await pid(target, host, name) for host in target.hosts for name in UNITS]


async def test_a_pause_that_comes_after_the_last_group_ends_with_the_deploy(target: Target) -> None:
    """Nothing new would begin, so the deploy is complete and the next phase is held."""
    sha = target.commit("second")
    async with shells_of(target) as shells:
        conclusion = await roll_out(shells, change(sha), always_healthy, partial(at_look, 4, []))
    assert (conclusion.verdict, conclusion.paused) == (Verdict.PASS, False), conclusion.sentence
    assert {target.head(host) for host in target.hosts} == {sha}


async def test_workers_that_do_not_start_in_a_pause_fail_the_deploy(target: Target) -> None:
    """A host without workers is not left to a person: the fleet goes back."""
    sha = target.commit("second")

    async def breaks() -> bool:
        if await pid(target, "web-2", "tsh-erp-workers") != "0":
            return False
        (target.hosts["web-2"] / "units" / "tsh-erp-workers.service").unlink(missing_ok=True)
        return True

    async with shells_of(target) as shells:
        conclusion = await roll_out(shells, change(sha), always_healthy, breaks)
    assert (conclusion.verdict, conclusion.paused) == (Verdict.FAIL, False), conclusion.sentence
    assert "start-workers-web-2" in conclusion.sentence


class Refusing(Notes):
    """A ledger whose login is refused once an operation is done."""

    async def confirm(self, operation_id: str, outcome: str, exit_status: int | None, output: str) -> None:
        raise LoginRefused("the password is being changed")


async def test_a_ledger_that_refuses_the_login_is_not_the_fault_of_a_host(target: Target) -> None:
    """The deploy is repeated when the login works, as after an outage; no host is called failed."""
    async with shells_of(target) as shells:
        with pytest.raises(LoginRefused):
            await roll_out(shells, change(target.commit("second"), Refusing()))


async def test_workers_that_came_back_by_themselves_are_stopped_again(target: Target) -> None:
    """A rebooted host runs old workers, so the effect of a finished operation is checked again."""
    sha, notes = target.commit("second"), Notes()
    async with shells_of(target) as shells:
        await prepare(shells[0], change(sha, notes))
        await stop_workers(shells[0], change(sha, notes))
        await manage(target.hosts["web-1"], "start", "tsh-erp-workers")
        result = await stop_workers(shells[0], change(sha, notes))
    assert result.done
    assert notes.intended()[-1] == "stop-workers-web-1-1r"
    assert await pid(target, "web-1", "tsh-erp-workers") == "0"


async def test_a_newer_controller_ends_an_older_one(target: Target) -> None:
    """The older controller gets LockLost, and the refusal is recorded."""
    sha, notes = target.commit("second"), Notes()
    async with shells_of(target) as shells:
        await prepare(shells[0], change(sha, release="r2", token=9))
        with pytest.raises(LockLost):
            await roll_out(shells, change(sha, notes, token=8))
    assert ("failed", "r1-prepare-web-1-1") in notes.lines
    assert target.head() != sha


async def test_a_unit_that_is_not_there_is_named(target: Target) -> None:
    """The message of a misspelt unit has its name."""
    sha = target.commit("second")
    async with shells_of(target, services={"command": ["systemctl"], "web": ["tsh-epr"]}) as shells:
        result = await activate(shells[0], change(sha))
        await prepare(shells[0], change(sha))
        result = await activate(shells[0], change(sha, attempt=2))
    assert result.outcome is OperationOutcome.FAILED
    assert "tsh-epr" in result.sentence
