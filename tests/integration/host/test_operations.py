"""An operation runs exactly once, even if the connection, the controller or the host fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic

import pytest

from handlers import errors
from handlers.errors import KeyRefused, LockLost
from handlers.host import operations
from handlers.host.command import Command
from handlers.host.operations import OperationOutcome, OperationResult, cancel, run_operation
from handlers.host.ssh import Shell
from handlers.host.state import read_state
from tests.integration.host.ssh_target import CLOSED_PORT, Relay, Target, open_host, serve


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """One host."""
    async with serve(tmp_path) as target:
        yield target


@pytest.fixture
async def shell(target: Target) -> AsyncIterator[Shell]:
    """A connection to it."""
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        yield shell


def mark(text: str = "ran", *, seconds: float = 0) -> Command:
    """A command that writes to a trace file each time it runs."""
    body = 'echo "begin $1" >>"$HOME/trace"; sleep "$2"; echo "$1" >>"$HOME/trace"; echo "said $1"'
    return Command.procedure(body, text, str(seconds), title="mark", changes=True)


def trace(target: Target) -> list[str]:
    """The work that ran to its end, in order."""
    file = target.hosts["web-1"] / "trace"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if not line.startswith("begin")]


async def until(true: Callable[[], object], *, seconds: float = 10) -> None:
    """Poll until a condition is true, with a timeout."""
    deadline = monotonic() + seconds
    while not true():
        assert monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


def job(target: Target, operation_id: str) -> Path:
    """The folder of an operation on the host."""
    return target.state() / "jobs" / operation_id


async def test_the_same_id_runs_once(target: Target, shell: Shell) -> None:
    """The same id again returns the first result and runs nothing."""
    first = await run_operation(shell, "r1-x", 1, mark())
    again = await run_operation(shell, "r1-x", 1, mark())
    assert first == again
    assert (first.outcome, first.exit_status, first.output) == (OperationOutcome.DONE, 0, "said ran\n")
    assert trace(target) == ["ran"]


async def test_many_at_once_with_one_id_run_once(target: Target, shell: Shell) -> None:
    """Many calls at the same time run the work once, and all return its result."""
    results = await asyncio.gather(*(run_operation(shell, "r1-x", 1, mark(seconds=0.3)) for _ in range(6)))
    assert {result.outcome for result in results} == {OperationOutcome.DONE}
    assert trace(target) == ["ran"]


async def test_a_rush_at_the_same_instant_starts_one(target: Target, shell: Shell) -> None:
    """Of thirty simultaneous starts on the host itself, exactly one runs the work."""
    begin = operations._Operation(shell, "r1-x", None).start(1, mark(), "r1", 20)
    rush = """printf '%s' "$1" >"$HOME/s"; n=0; while [ $n -lt 30 ]; do sh "$HOME/s" & n=$((n + 1)); done; wait"""
    told = (await shell.run(Command.procedure(rush, begin.script, title="rush"))).stdout.split()
    assert (told.count("new"), told.count("old")) == (1, 29)
    assert (await run_operation(shell, "r1-x", 1, mark())).done
    assert trace(target) == ["ran"]
    assert [path.name for path in (target.state() / "jobs").iterdir()] == ["r1-x"]


async def test_a_failure_has_its_status_and_last_line(shell: Shell) -> None:
    """The message of a failed operation has its exit status and the last line of its output."""
    work = Command.procedure("echo much; echo 'no room' >&2; exit 3", title="t", changes=True)
    result = await run_operation(shell, "r1-x", 1, work)
    assert (result.outcome, result.exit_status) == (OperationOutcome.FAILED, 3)
    assert "no room" in result.sentence
    assert "much" in result.output


async def test_a_cut_connection_loses_nothing(target: Target) -> None:
    """After a lost connection the operation continues; a reconnect attaches, and it has run once."""
    async with Relay(target) as relay:
        environment = target.environment()
        host = environment.hosts[0].model_copy(update={"port": relay.port})
        async with open_host(environment, host) as shell:
            running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=1.5)))
            await until((target.hosts["web-1"] / "trace").exists)
            relay.cut()
            relay.open = False
            await asyncio.sleep(0.3)
            relay.open = True
            result = await running
    assert result.done, result.sentence
    assert trace(target) == ["ran"]


async def test_a_key_that_is_changed_meanwhile_is_waited_for(target: Target) -> None:
    """The connection is lost and no login accepted: the operation goes on, and its outcome is read with the new key."""
    keys = target.servers["web-1"].authorized_keys
    allowed = keys.read_text()
    async with Relay(target) as relay:
        environment = target.environment()
        host = environment.hosts[0].model_copy(update={"port": relay.port})
        async with open_host(environment, host) as shell:
            running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=0.5)))
            await until((target.hosts["web-1"] / "trace").exists)
            keys.write_text("")
            relay.cut()
            await until(lambda: trace(target))
            assert not running.done()
            keys.write_text(allowed)
            result = await running
    assert result.done, result.sentence
    assert trace(target) == ["ran"]


@pytest.mark.parametrize("seconds", [None, 1.0])
async def test_a_key_that_is_refused_before_the_start_starts_nothing(
    target: Target, seconds: float | None
) -> None:
    """At once, or after the time that a change of the fleet waits: the sentence names the key."""
    target.servers["web-1"].authorized_keys.write_text("")
    environment = target.environment()
    shell = Shell(environment, environment.hosts[0])
    try:
        if seconds is None:
            with pytest.raises(KeyRefused, match="authorized_keys"):
                await run_operation(shell, "r1-x", 1, mark())
        else:
            result = await run_operation(shell, "r1-x", 1, mark(), contact_seconds=seconds)
            assert result.outcome is OperationOutcome.UNREACHABLE
            assert "authorized_keys" in result.sentence
    finally:
        shell.close()
    assert trace(target) == []


async def test_a_connection_that_is_cut_at_any_moment_never_runs_it_twice(target: Target) -> None:
    """With connections cut at every stage, the operation still runs exactly once."""
    async with Relay(target) as relay:
        environment = target.environment()
        host = environment.hosts[0].model_copy(update={"port": relay.port})
        async with open_host(environment, host) as shell:
            for number in range(8):
                running = asyncio.create_task(run_operation(shell, f"r1-{number}", 1, mark(f"{number}")))
                await asyncio.sleep(0.012 * number)
                relay.cut()
                assert (await running).done
    assert trace(target) == [str(number) for number in range(8)]


async def test_a_host_that_is_down_is_unreachable(
    target: Target, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so the outcome is unreachable and not unknown."""
    monkeypatch.setattr(operations, "_FIRST_CONTACT_SECONDS", 0.5)
    host = shell.host.model_copy(update={"port": CLOSED_PORT})
    down = Shell(shell.environment, host)
    result = await run_operation(down, "r1-x", 1, mark())
    down.close()
    assert result.outcome is OperationOutcome.UNREACHABLE
    assert trace(target) == []


async def test_a_host_that_dies_under_way_is_unknown(target: Target) -> None:
    """It was sent and the host does not answer: the outcome is unknown, neither done nor failed."""
    async with Relay(target) as relay:
        environment = target.environment()
        host = environment.hosts[0].model_copy(update={"port": relay.port})
        async with open_host(environment, host) as shell:
            running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=4), limit=2))
            await until((target.hosts["web-1"] / "trace").exists)
            relay.open = False
            relay.cut()
            result = await running
    assert result.outcome is OperationOutcome.UNKNOWN
    assert not result.interrupted


async def test_a_smaller_token_is_refused(target: Target, shell: Shell) -> None:
    """A controller with an older token than the host has obeyed has lost the lock; the host refuses its work."""
    await run_operation(shell, "new", 7, mark("new"))
    with pytest.raises(LockLost, match="token 7"):
        await run_operation(shell, "old", 6, mark("old"))
    with pytest.raises(LockLost):
        await run_operation(shell, "old", 6, mark("old"))
    assert (await run_operation(shell, "same", 7, mark("same"))).done
    assert trace(target) == ["new", "same"]


async def test_what_was_turned_away_may_run_when_its_turn_has_come(target: Target, shell: Shell) -> None:
    """A fenced operation never ran: with a new token the same release can run it."""
    await run_operation(shell, "new", 7, mark("new"))
    with pytest.raises(LockLost):
        await run_operation(shell, "mine", 6, mark("mine"))
    assert (await run_operation(shell, "mine", 8, mark("mine"))).done
    assert (await run_operation(shell, "mine", 8, mark("mine"))).done
    assert trace(target) == ["new", "mine"]


async def test_a_killed_operation_is_interrupted_and_stays_so(target: Target, shell: Shell) -> None:
    """Its processes are gone without an exit status: unknown, and the same id does not run it again."""
    running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=30)))
    await until((job(target, "r1-x") / "work.pid").exists)
    for name in ("pid", "work.pid"):
        os.kill(int((job(target, "r1-x") / name).read_text().split()[0]), signal.SIGKILL)
    for result in (await running, await run_operation(shell, "r1-x", 1, mark())):
        assert result.outcome is OperationOutcome.UNKNOWN
        assert result.interrupted
    assert trace(target) == []


async def test_a_reboot_of_the_host_interrupts_it(target: Target, shell: Shell) -> None:
    """After a reboot, a process with the same pid is not our operation."""
    await run_operation(shell, "r1-x", 1, mark())
    (job(target, "r1-x") / "rc").unlink()
    pid = os.getpid()
    began = fields_of(pid)[19]
    (job(target, "r1-x") / "pid").write_text(f"{pid} {began} another-boot\n")
    assert (await run_operation(shell, "r1-x", 1, mark())).interrupted


async def test_a_reused_pid_is_not_our_operation(target: Target, shell: Shell) -> None:
    """A running process with the reused pid of a dead runner does not count as the operation."""
    await run_operation(shell, "r1-x", 1, mark())
    (job(target, "r1-x") / "rc").unlink()
    _, _, boot = (job(target, "r1-x") / "pid").read_text().split()
    (job(target, "r1-x") / "pid").write_text(f"{os.getpid()} 1 {boot}\n")
    assert (await run_operation(shell, "r1-x", 1, mark())).interrupted


async def test_what_never_began_is_sealed(
    target: Target, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose runner never started is sealed, so that it is certain that nothing was done."""
    monkeypatch.setattr(operations, "_BEGIN_SECONDS", 0.1)
    await run_operation(shell, "first", 1, mark("first"))
    job(target, "r1-x").mkdir()
    result = await run_operation(shell, "r1-x", 1, mark())
    assert result.outcome is OperationOutcome.FAILED
    assert "nothing was done" in result.sentence
    assert trace(target) == ["first"]


async def test_overdue_work_is_ended_with_its_children(target: Target, shell: Shell) -> None:
    """After its timeout the work is killed on the host, with all its processes."""
    body = 'sleep 4711 & echo $! >"$HOME/child"; sleep 4711'
    work = Command.procedure(body, title="t", changes=True)
    result = await run_operation(shell, "r1-x", 1, work, limit=1)
    assert result.outcome is OperationOutcome.FAILED
    assert "took too long" in result.sentence
    child = int((target.hosts["web-1"] / "child").read_text())
    await until(lambda: not alive(child))


async def test_cancelling_ends_the_work(target: Target, shell: Shell) -> None:
    """A cancelled operation ends as cancelled and its work is gone; one that has ended stays as it was."""
    running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=30)))
    await until((target.hosts["web-1"] / "trace").exists)
    await cancel(shell, "r1-x")
    result = await running
    assert result.outcome is OperationOutcome.FAILED
    assert "cancelled" in result.sentence
    assert trace(target) == []
    done = await run_operation(shell, "r1-y", 1, mark())
    await cancel(shell, "r1-y")
    assert await run_operation(shell, "r1-y", 1, mark()) == done


async def test_a_controller_that_goes_away_ends_nothing(target: Target, shell: Shell) -> None:
    """The operation of a killed controller continues, and the next controller attaches by its id."""
    running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark(seconds=1)))
    await until((target.hosts["web-1"] / "trace").exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as next_one:
        assert (await run_operation(next_one, "r1-x", 2, mark())).done
    assert trace(target) == ["ran"]


async def test_one_operation_at_a_time(target: Target, shell: Shell) -> None:
    """Different operations on one host never overlap."""
    await asyncio.gather(*(run_operation(shell, f"r1-{n}", 1, mark(str(n), seconds=0.2)) for n in range(4)))
    lines = (target.hosts["web-1"] / "trace").read_text().splitlines()
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    assert all(begin == f"begin {end}" for begin, end in pairs)


async def test_a_lock_that_is_held_too_long_is_busy(target: Target, shell: Shell) -> None:
    """An operation that does not get the host's lock in time reports that it did nothing."""
    running = asyncio.create_task(run_operation(shell, "r1-x", 1, mark("long", seconds=5)))
    await until((target.hosts["web-1"] / "trace").exists)
    result = await run_operation(shell, "r1-y", 1, mark("late"), limit=1)
    assert "another operation held the host's lock" in result.sentence
    await cancel(shell, "r1-x")
    await running
    assert trace(target) == []


async def test_a_daemon_does_not_keep_the_lock(target: Target, shell: Shell) -> None:
    """A daemon that an operation starts neither holds the lock nor delays the end."""
    body = 'sleep 20 & echo $! >"$HOME/child"'
    began = monotonic()
    await run_operation(shell, "r1-x", 1, Command.procedure(body, title="t", changes=True))
    assert (await run_operation(shell, "r1-y", 1, mark())).done
    assert monotonic() - began < 8
    os.kill(int((target.hosts["web-1"] / "child").read_text()), signal.SIGKILL)


async def test_the_state_file_tells_the_last_operation(target: Target, shell: Shell) -> None:
    """The host's state file has the last release that changed it, and the outcome."""
    assert await read_state(shell) is None
    await run_operation(shell, "r1-x", 5, Command("false", changes=True), release="r1")
    state = await read_state(shell)
    assert state is not None
    assert (state.release, state.token, state.operation) == ("r1", 5, "r1-x")
    assert (state.outcome, state.exit_status) == ("failed", 1)
    assert json.loads((target.state() / "state.json").read_text())["at"].endswith("Z")


async def test_old_operations_are_forgotten_and_running_ones_are_not(target: Target, shell: Shell) -> None:
    """Fifty folders are kept; one without an exit status is never deleted."""
    await run_operation(shell, "first", 1, mark())
    jobs = target.state() / "jobs"
    for number in range(60):
        folder = jobs / f"old-{number}"
        folder.mkdir()
        (folder / "rc").write_text("done 0\n")
        os.utime(folder, (number, number))
    running = jobs / "running"
    running.mkdir()
    os.utime(running, (1, 1))
    await run_operation(shell, "last", 1, mark())
    await until(lambda: len(list(jobs.iterdir())) == 51)
    assert running.exists()
    assert (jobs / "last").exists()


async def test_progress_is_reported(shell: Shell) -> None:
    """on_poll gets the output so far."""
    seen: list[str] = []

    async def look(output: str) -> None:
        seen.append(output)

    body = "echo one; sleep 3; echo two"
    await run_operation(shell, "x", 1, Command.procedure(body, title="t", changes=True), on_poll=look)
    assert seen[0] == "one\n"
    assert seen[-1] == "one\ntwo\n"


async def test_the_work_has_the_accounts_umask_and_its_files_are_private(
    target: Target, shell: Shell
) -> None:
    """Files of the work are readable by the units; files of the operation only by us."""
    work = Command.procedure('umask; echo secret; : >"$HOME/made"', title="t", changes=True)
    result = await run_operation(shell, "r1-x", 1, work)
    usual = await shell.run(Command("umask"))
    assert result.output.startswith(usual.stdout)
    assert (job(target, "r1-x") / "output").stat().st_mode & 0o077 == 0
    assert target.state().stat().st_mode & 0o077 == 0


async def test_a_name_that_cannot_be_a_folder_is_refused(shell: Shell) -> None:
    """An id that would leave the folder is refused before it is sent."""
    for bad in ("", "../x", "a b", "a/b", "-x"):
        with pytest.raises(errors.Refused):
            await run_operation(shell, bad, 1, mark())


def fields_of(pid: int) -> list[str]:
    """The fields of a process in /proc, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return fields_of(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_result_is_a_plain_value() -> None:
    """What the ledger stores can be compared and copied."""
    result = OperationResult(id="x", outcome=OperationOutcome.DONE, exit_status=0, output="", sentence="")
    assert result.done


async def test_a_full_disk_has_a_reserve_of_bytes_and_of_inodes(target: Target, shell: Shell) -> None:
    """An operation keeps it; a rollback on a disk without free bytes or inodes needs both.

    What a reboot has left of one in the making is no reserve.
    """
    (target.state() / "reserve.new").mkdir(parents=True)
    await run_operation(shell, "r1-prepare-web-1-1", 1, Command("true"))
    reserve = target.state() / "reserve"
    deadline = monotonic() + 10
    while not reserve.is_dir() or len(list(reserve.iterdir())) < 101:
        assert monotonic() < deadline
        await asyncio.sleep(0.05)
    assert sum(path.stat().st_size for path in reserve.iterdir()) == 4 * 1024 * 1024
    assert not (target.state() / "reserve.new").exists()
