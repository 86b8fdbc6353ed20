"""The way back: each host goes back by itself, and only what is known to be possible stops its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.host import operations, step, way_back
from handlers.host.command import Command
from handlers.host.fleet import roll_out
from handlers.host.health import HostHealth
from handlers.host.operations import run_operation
from handlers.host.ssh import Shell
from handlers.host.state import read_state
from handlers.host.step import HostChange, activate, prepare, stop_workers
from handlers.host.way_back import HostReturn
from tests.integration.host.ssh_target import CLOSED_PORT, Target, unit
from tests.integration.host.units import (
    UNITS,
    Notes,
    change,
    deploy_keys,
    hosts_with_units,
    manage,
    pid,
    shells_of,
)

WEB_1 = HostReturn(host="web-1")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """Two hosts with units that run."""
    async with hosts_with_units(tmp_path) as target:
        yield target


async def healthy(shell: Shell, _replaced: Mapping[str, str]) -> HostHealth:
    """A probe that passes."""
    return HostHealth(host=shell.host.name, good=True, revision=None, summary="healthy")


async def go(shell: Shell, back: HostChange, leaving: str, before: HostReturn = WEB_1) -> HostReturn:
    """One try with an attempt of its own, as the rollback makes it."""
    own = replace(back, back=True, attempt=f"{back.token}.{before.tries + 1}")
    return await way_back.go_back(shell, own, before, leaving=leaving, prove=healthy)


async def test_a_host_goes_back_without_the_origin_and_keeps_its_previous_revision(target: Target) -> None:
    """The tree is back, its units run in new processes, and the state file still names the same previous revision."""
    old, sha = target.head(), target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        before = [await pid(target, name=name) for name in UNITS]
        target.origin.rename(target.folder / "gone.git")
        back = await go(shells[0], change(old), sha)
        state = await read_state(shells[0])
    assert (back.back, back.tries) == (True, 1), back
    assert (target.head("web-1"), target.head("web-2")) == (old, sha)
    after = [await pid(target, name=name) for name in UNITS]
    assert not {*before, "0"} & {*after}
    assert state is not None
    assert (state.current, state.previous) == (old, old)


async def test_a_host_that_is_away_is_said_so_and_goes_back_at_a_later_try(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try names the fault and changes nothing; the second one brings the host back."""
    old, sha = target.head(), target.commit("second")
    monkeypatch.setattr(operations, "_FIRST_CONTACT_SECONDS", 0.5)
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        dead = Shell(shells[0].environment, shells[0].host.model_copy(update={"port": CLOSED_PORT}))
        first = await go(dead, change(old), sha)
        dead.close()
        assert (first.back, first.away) == (False, True)
        assert "cannot be reached" in first.sentence
        second = await go(shells[0], change(old), sha, first)
    assert (second.back, second.away, second.tries) == (True, False, 2)
    assert target.head() == old


async def test_workers_of_a_host_that_cannot_go_back_are_not_stopped(target: Target) -> None:
    """A host without the previous revision and without a remote: nothing is switched, and its workers run on."""
    sha = target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        before = [await pid(target, name=name) for name in UNITS]
        target.origin.rename(target.folder / "gone.git")
        back = await go(shells[0], change("a" * 40), sha)
    assert not back.back
    assert "cannot fetch" in back.sentence
    assert back.sentence.endswith("nothing was switched and no worker stopped")
    assert [await pid(target, name=name) for name in UNITS] == before


async def test_a_host_that_was_only_prepared_is_not_restarted(target: Target) -> None:
    """The deploy stopped its workers and went no further: they are started, and the web process stays."""
    old, sha = target.head(), target.commit("second")
    async with shells_of(target) as shells:
        await prepare(shells[0], change(sha))
        await stop_workers(shells[0], change(sha))
        web = await pid(target)
        back = await go(shells[0], change(old), sha)
    assert back.back, back
    assert await pid(target) == web
    assert await pid(target, name="tsh-erp-workers") != "0"


async def test_a_host_that_is_back_already_is_left_alone(target: Target) -> None:
    """Another controller finds the last operation done, and only proves it."""
    old, sha, notes = target.head(), target.commit("second"), Notes()
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        await go(shells[0], change(old), sha)
        before = [await pid(target, name=name) for name in UNITS]
        again = await go(shells[0], change(old, notes, token=2), sha)
    assert again.back
    assert notes.lines == []
    assert [await pid(target, name=name) for name in UNITS] == before


async def test_a_placed_host_that_is_not_healthy_yet_is_only_asked_again(target: Target) -> None:
    """Its database may be away: another restart would not help. A process of the other revision is replaced."""
    old, sha, notes = target.head(), target.commit("second"), Notes()
    answers = iter([None, old, sha, old])

    async def ill(shell: Shell, _replaced: Mapping[str, str]) -> HostHealth:
        return HostHealth(host=shell.host.name, good=False, revision=next(answers), summary="HTTP 503")

    async def once_more(before: HostReturn) -> HostReturn:
        own = change(old, notes, back=True, attempt=before.tries + 1)
        return await way_back.go_back(shells[0], own, before, leaving=sha, prove=ill)

    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        first = await once_more(WEB_1)
        started = len(notes.lines)
        second = await once_more(first)
        assert (second.placed, second.back, len(notes.lines)) == (True, False, started)
        third = await once_more(second)
        assert not third.placed
        assert (third.units, third.revision) == ("tsh-erp active, tsh-erp-workers active", sha)


async def test_a_unit_that_still_starts_after_its_whole_time_is_started_again(target: Target) -> None:
    """It waits for something, or for its next start: asking it once more would not help."""
    old, sha = target.head(), target.commit("second")
    home = target.hosts["web-1"]

    async def silent(shell: Shell, _replaced: Mapping[str, str]) -> HostHealth:
        return HostHealth(host=shell.host.name, good=False, revision=None, summary="no answer")

    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        unit(home, "tsh-erp", "/bin/false", pause=600)
        own = change(old, back=True, attempt="1.1")
        first = await way_back.go_back(shells[0], own, WEB_1, leaving=sha, prove=silent)
        assert "tsh-erp activating" in first.units, first
        unit(home, "tsh-erp", "/bin/sleep 1000")
        second = await go(shells[0], change(old), sha, first)
    assert second.back, second
    assert await pid(target) != "0"


async def test_local_changes_are_kept_and_do_not_stop_the_way_back(target: Target) -> None:
    """Local edits on the host are saved before a rollback overwrites them."""
    old, sha = target.head(), target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        (target.tree() / "app.txt").write_text("edited in a hurry")
        back = await go(shells[0], change(old), sha)
    assert back.back, back
    assert (target.tree() / "app.txt").read_text() == "first"
    kept = target.state() / "lost" / "r1-back-activate-web-1-1.1" / "changes.diff"
    assert "+edited in a hurry" in kept.read_text()


async def test_a_crash_loop_does_not_spend_the_way_backs_restarts(target: Target) -> None:
    """A unit beyond systemd's start limit is restarted: its failure counter is reset first."""
    old, sha = target.head(), target.commit("second")
    unit(target.hosts["web-1"], "tsh-erp", "/bin/false")
    async with shells_of(target) as shells:
        failed = await roll_out(shells, change(sha))
        for _ in range(6):
            await manage(target.hosts["web-1"], "restart", "tsh-erp")
        unit(target.hosts["web-1"], "tsh-erp", "/bin/sleep 1000")
        back = await go(shells[0], change(old), sha)
    assert failed.touched_hosts is True
    assert back.back, back
    assert await pid(target) != "0"


async def test_a_hook_that_fails_does_not_keep_the_bad_process(target: Target) -> None:
    """On the way back the hook is reported, and the previous revision is started all the same."""
    old, sha = target.head(), target.commit("second")
    keys = deploy_keys(after_activate=['[ "$RUNBOOK_DIRECTION" = forward ]'])
    async with shells_of(target, **keys) as shells:
        await roll_out(shells, change(sha))
        before = await pid(target)
        back = await go(shells[0], change(old), sha)
    assert back.back, back
    assert target.head() == old
    assert await pid(target) not in ("0", before)


async def test_a_deploy_that_hangs_on_the_host_does_not_hold_up_the_way_back(target: Target) -> None:
    """Its controller died while a hook hangs: the hook is ended, and the tree that it left half done is switched."""
    old, sha = target.head(), target.commit("second")
    hook = 'echo > "$HOME/hangs"; exec sleep 600'
    keys = deploy_keys(after_activate=[f'[ "$RUNBOOK_DIRECTION" = back ] || {{ {hook}; }}'])
    async with shells_of(target, **keys) as shells:
        await prepare(shells[0], change(sha))
        deploying = asyncio.create_task(activate(shells[0], change(sha)))
        deadline = time.monotonic() + 20
        while not (target.hosts["web-1"] / "hangs").exists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        deploying.cancel()
        await asyncio.wait({deploying})
        async with asyncio.timeout(25):
            back = await go(shells[0], change(old), sha)
        ended = await run_operation(shells[0], "r1-activate-web-1-1", 1, Command("true"))
    assert back.back, back
    assert target.head() == old
    assert "was cancelled" in ended.sentence


async def test_workers_that_do_not_stop_do_not_keep_the_bad_web_process(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is switched and the web restarted while the workers hang; then these are killed, not waited for."""
    old, sha = target.head(), target.commit("second")
    monkeypatch.setattr(step, "_BACK_STOP_SECONDS", 1)
    home = target.hosts["web-1"]
    later = home / "later"
    stubborn = f"/bin/sh -c 'test -e {later} || trap : TERM; while :; do sleep 1; done'"
    notes = Notes()
    async with shells_of(target, services={"stop_seconds": 2}) as shells:
        await roll_out(shells, change(sha))
        for name in UNITS:
            unit(home, name, stubborn, stop_seconds=600)
        await manage(home, "restart", *UNITS)
        later.touch()
        forward = await stop_workers(shells[0], change(sha, attempt=2))
        assert forward.sentence.endswith("with status 82: the unit tsh-erp-workers has not stopped yet")
        before = [await pid(target, name=name) for name in UNITS]
        async with asyncio.timeout(30):
            back = await go(shells[0], change(old, notes), sha)
    assert back.back, back
    assert ("failed", "r1-back-stop-workers-web-1-1.1") in notes.lines
    after = [await pid(target, name=name) for name in UNITS]
    assert not {*before, "0"} & {*after}


async def test_a_host_that_obeys_another_controller_is_given_up(target: Target) -> None:
    """Its token is higher: no further try may change it, and the sentence says who it obeys."""
    old, sha = target.head(), target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        await run_operation(shells[0], "another", 99, Command("true"))
        back = await go(shells[0], change(old), sha)
    assert (back.gave_up, back.back) == (True, False)
    assert "newer controller" in back.sentence
    assert target.head() == sha


async def test_workers_are_started_again_where_the_switch_was_impossible(target: Target) -> None:
    """The tree cannot be written: after the last try the workers run as before."""
    old, sha = target.head(), target.commit("second")
    async with shells_of(target) as shells:
        await roll_out(shells, change(sha))
        # git refuses to switch: its index is a folder.
        index = target.tree() / ".git" / "index"
        index.rename(index.with_name("index.aside"))
        index.mkdir()
        (index / "x").touch()
        back = await go(shells[0], change(old), sha)
        assert not back.back
        assert await pid(target, name="tsh-erp-workers") == "0", back
        index.joinpath("x").unlink()
        index.rmdir()
        index.with_name("index.aside").rename(index)
        left = await way_back.leave(shells[0], change(old, back=True, attempt="1.9"), back)
    assert left.sentence.endswith("its workers are started again")
    assert await pid(target, name="tsh-erp-workers") != "0"
    assert target.head() == sha
