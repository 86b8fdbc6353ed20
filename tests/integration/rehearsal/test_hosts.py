"""The rehearsal's hosts behave like real ones: true SSH, and a service manager with systemd's manners."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from rehearsal.hosts import systemctl
from rehearsal.hosts.sshd import Kind, Sshd, SshdError, find_sshd


def until(true: Callable[[], object], seconds: float = 15) -> None:
    """Poll until *true* holds; the bound only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.03)


# --- SSH ---


@pytest_asyncio.fixture(params=["asyncssh", "openssh"])
async def sshd(request: pytest.FixtureRequest, short_folder: Path) -> AsyncIterator[Sshd]:
    """A server of each kind, with a host folder as its home."""
    kind: Kind = request.param
    if kind == "openssh" and find_sshd() is None:
        pytest.skip("this machine has no sshd")
    home = short_folder / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "HOST_NAME": "web-1",
        # By it the run of the tests finds whatever was detached here.
        "TMPDIR": str(short_folder),
    }
    try:
        server = await Sshd.start(
            folder=short_folder / "ssh",
            home=home,
            key_file=short_folder / "key",
            environment=environment,
            kind=kind,
        )
    except SshdError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


THIEF = """#!{python}
import os, re, signal, socket, sys
from pathlib import Path

port = int(re.search(r"^Port (\\d+)$", Path(sys.argv[sys.argv.index("-f") + 1]).read_text(), re.MULTILINE)[1])
stolen = Path("{stolen}")
if not stolen.exists():
    listening = socket.create_server(("127.0.0.1", port))
    if (thief := os.fork()) == 0:
        os.closerange(0, 3)
        signal.pause()
    stolen.write_text(f"{{port}} {{thief}}")
os.execv("{sshd}", ["{sshd}", *sys.argv[1:]])
"""
"""An sshd before whose first start somebody takes the port that was chosen for it."""


async def test_port_that_somebody_took_before_sshd_is_replaced(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between choosing a port and using it another program may take it: sshd starts on another one."""
    if (sshd := find_sshd()) is None:
        pytest.skip("this machine has no sshd")
    (short_folder / "bin").mkdir()
    stolen, shim = short_folder / "stolen", short_folder / "bin" / "sshd"
    shim.write_text(THIEF.format(python=sys.executable, stolen=stolen, sshd=sshd), encoding="utf-8")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=os.pathsep)
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(short_folder)}
    try:
        server = await Sshd.start(
            folder=short_folder / "ssh",
            home=short_folder,
            key_file=short_folder / "key",
            environment=environment,
            kind="openssh",
        )
    finally:
        port, thief = map(int, stolen.read_text().split())
        os.kill(thief, signal.SIGKILL)
    try:
        assert server.port != port
        async with connect(server) as connection:
            assert (await connection.run("printf here")).stdout == "here"
    finally:
        server.stop()


def connect(server: Sshd, **options: object) -> asyncssh.connection._ACMWrapper[asyncssh.SSHClientConnection]:
    return asyncssh.connect(
        "127.0.0.1",
        server.port,
        **{
            "username": server.user,
            "client_keys": [str(server.key_file)],
            "known_hosts": asyncssh.import_known_hosts(server.known_hosts_line),
            "config": None,
            "agent_path": None,
            **options,
        },
    )


async def test_exit_codes_are_true(sshd: Sshd) -> None:
    """What the command ended with is what the client hears, again and again and at the same time."""
    async with connect(sshd) as connection:
        codes = [(n * 7) % 256 for n in range(40)]
        answers = [await connection.run(f"exit {code}") for code in codes[:20]]
        for start in range(20, 40, 5):
            answers += await asyncio.gather(*(connection.run(f"exit {c}") for c in codes[start : start + 5]))
        assert [answer.exit_status for answer in answers] == codes
        assert (await connection.run("no-such-command")).exit_status == 127


async def test_command_killed_by_a_signal_says_so(sshd: Sshd) -> None:
    """A killed command has no exit code, it has a signal."""
    async with connect(sshd) as connection:
        answer = await connection.run("kill -9 $$")
    assert answer.exit_signal is not None
    assert answer.exit_signal[0] == "KILL"


async def test_large_output_arrives_whole(sshd: Sshd) -> None:
    """Twenty megabytes on both streams at once neither hang nor get lost."""
    async with connect(sshd) as connection:
        answer = await connection.run(
            "head -c 20000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait; exit 9", encoding=None
        )
    assert (len(answer.stdout), len(answer.stderr), answer.exit_status) == (20_000_000, 3_000_000, 9)


async def test_input_reaches_the_command_and_ends(sshd: Sshd) -> None:
    """A command that reads to the end of its input comes to its end."""
    async with connect(sshd) as connection:
        answer = await connection.run("wc -c", input="x" * 300_000)
    assert str(answer.stdout).strip() == "300000"


async def test_command_runs_on_the_host(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command begins in the host's folder with the host's environment and nothing of ours."""
    monkeypatch.setenv("OUR_OWN_SECRET", "x")
    async with connect(sshd) as connection:
        answer = await connection.run('pwd; echo "$HOME $HOST_NAME ${OUR_OWN_SECRET:-none}"')
    pwd, words = str(answer.stdout).splitlines()
    assert words == f"{pwd} web-1 none"


async def test_detached_command_survives_the_client(sshd: Sshd, short_folder: Path) -> None:
    """What was started with setsid goes on when the connection is cut in the middle."""
    async with connect(sshd) as connection:
        await connection.run(
            "setsid sh -c 'while [ ! -e go ]; do sleep 0.05; done; echo 3 > rc' </dev/null >/dev/null 2>&1 &"
        )
        connection.abort()
    (short_folder / "home" / "go").touch()
    until((short_folder / "home" / "rc").exists)


async def test_silent_command_survives_and_talking_one_ends(sshd: Sshd, short_folder: Path) -> None:
    """As with a real server: a command in the foreground only finds its pipes closed when the client goes."""
    home = short_folder / "home"
    async with connect(sshd) as connection:
        await connection.create_process("while [ ! -e go ]; do sleep 0.05; done; echo ok > silent")
        await connection.create_process(
            "trap '' PIPE; while echo tick 2>/dev/null; do sleep 0.02; done; echo ended > talking"
        )
        await connection.run("true")
        connection.abort()
    until((home / "talking").exists)
    (home / "go").touch()
    until((home / "silent").exists)


async def test_foreign_key_and_foreign_user_are_turned_away(sshd: Sshd) -> None:
    """Only our key and our name get in."""
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(sshd, client_keys=[stranger])
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(sshd, username="somebody-else")


async def test_changed_host_key_is_noticed(sshd: Sshd) -> None:
    """The known_hosts line belongs to this server and to no other."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await connect(
            sshd, known_hosts=asyncssh.import_known_hosts(f"[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n")
        )


async def test_files_travel_by_sftp(sshd: Sshd, short_folder: Path, tmp_path: Path) -> None:
    """SFTP begins in the host's folder and carries bytes as they are."""
    local = tmp_path / "file"
    local.write_bytes(os.urandom(300_000))
    async with connect(sshd) as connection, connection.start_sftp_client() as sftp:
        await sftp.put(str(local), "arrived")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat("missing")
    assert (short_folder / "home" / "arrived").read_bytes() == local.read_bytes()


async def test_private_keys_are_ours_alone(sshd: Sshd, short_folder: Path) -> None:
    """No other user may read a private key."""
    assert {path.stat().st_mode & 0o777 for path in (sshd.key_file, short_folder / "ssh" / "host_key")} == {
        0o600
    }


def test_server_ends_with_its_owner(short_folder: Path) -> None:
    """kill -9 of whoever started a tied server leaves no server behind."""
    code = (
        "import asyncio, os, sys, time; from pathlib import Path; from rehearsal.hosts.sshd import Sshd\n"
        "f = Path(sys.argv[1]); s = asyncio.run(Sshd.start(folder=f / 'ssh', home=f, key_file=f / 'key',"
        " environment=dict(os.environ), kind='asyncssh'))\n"
        "print(s.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(short_folder)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


# --- the service manager ---


class Host:
    """A host's folder with the service manager in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        systemctl.install(folder)

    def unit(self, name: str, script: str, **service: str) -> None:
        file = self.folder / f"{name}.sh"
        file.write_text(script)
        lines = [f"{key}={value}" for key, value in {"ExecStart": f"/bin/sh {file}", **service}.items()]
        (self.folder / "units" / f"{name}.service").write_text("\n".join(["[Unit]", "[Service]", *lines, ""]))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / "systemctl"), *words],
            capture_output=True, text=True, check=False, timeout=30,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder),
                "SECRET_OF_THE_SESSION": "x",
            },
        )  # fmt: skip

    def show(self, name: str) -> dict[str, str]:
        lines = self.run("show", name).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def host(short_folder: Path) -> Host:  # type: ignore[misc]
    """A host whose units are stopped at the end."""
    host = Host(short_folder)
    yield host
    for file in (short_folder / "units").iterdir():
        host.run("stop", file.name)


FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


def test_start_stop_and_what_is_active_says(host: Host) -> None:
    """A unit that runs is active with rc 0, a stopped one inactive with rc 3."""
    host.unit("web", FOREVER)
    assert (host.run("is-active", "web").stdout, host.run("is-active", "web").returncode) == ("inactive\n", 3)
    assert host.run("start", "web").returncode == 0
    assert (host.run("is-active", "web").stdout, host.run("is-active", "web").returncode) == ("active\n", 0)
    pid = int(host.show("web")["MainPID"])
    assert _runs(pid)
    assert host.run("start", "web").returncode == 0
    assert int(host.show("web")["MainPID"]) == pid, "a second start leaves a running unit alone"
    assert host.run("stop", "web").returncode == 0
    assert not _runs(pid)
    assert host.run("status", "web").returncode == 3


def test_unknown_unit_is_rc_5(host: Host) -> None:
    """A job for a unit that is not there is refused by its name; `show` only says not-found."""
    for verb in ("start", "stop", "restart", "reset-failed"):
        answer = host.run(verb, "nothing")
        assert answer.returncode == 5
        assert "nothing.service not found" in answer.stderr
    assert host.run("status", "nothing").returncode == 4
    assert host.run("is-active", "nothing").returncode == 3
    assert host.run("show", "nothing", "-p", "LoadState").stdout == "LoadState=not-found\n"


def test_killed_unit_comes_back(host: Host) -> None:
    """kill -9 of a unit that shall always run starts it again, and the restart is counted."""
    host.unit("web", FOREVER, Restart="always", RestartSec="100ms")
    host.run("start", "web")
    pid = int(host.show("web")["MainPID"])
    os.kill(pid, signal.SIGKILL)
    until(lambda: host.show("web")["NRestarts"] == "1" and host.show("web")["ActiveState"] == "active")
    assert int(host.show("web")["MainPID"]) not in (0, pid)


def test_unit_without_restart_fails_and_stays_down(host: Host) -> None:
    """A unit that ends with an error and may not restart is failed, with the reason kept."""
    host.unit("web", "exit 3")
    assert host.run("restart", "web").returncode == 0, "as with systemd, making a process is enough"
    until(lambda: host.show("web")["ActiveState"] == "failed")
    assert (host.show("web")["Result"], host.show("web")["ExecMainStatus"]) == ("exit-code", "3")


def test_restart_of_what_cannot_start_succeeds(host: Host) -> None:
    """The exit status of a restart proves nothing: not even the program has to be there."""
    host.unit("web", "", ExecStart="/no/such/program")
    assert host.run("restart", "web").returncode == 0
    until(lambda: host.show("web")["ActiveState"] == "failed")
    assert host.show("web")["ExecMainStatus"] == "203"


def test_crash_loop_spends_the_start_limit(host: Host) -> None:
    """Five starts in ten seconds, then the unit is failed, refuses starts, and reset-failed lifts that."""
    host.unit("web", "exit 1", Restart="on-failure", RestartSec="10ms")
    host.run("start", "web")
    until(lambda: host.show("web")["Result"] == "start-limit-hit")
    refused = host.run("restart", "web")
    assert refused.returncode == 1
    assert "too quickly" in refused.stderr
    host.unit("web", FOREVER)
    assert host.run("restart", "web").returncode == 1, "a good file does not help before the reset"
    host.run("reset-failed", "web")
    assert host.run("restart", "web").returncode == 0
    assert host.run("is-active", "web").returncode == 0


def test_manual_restarts_count_against_the_limit(host: Host) -> None:
    """The sixth restart in a row is refused, as with systemd."""
    host.unit("web", FOREVER)
    codes = [host.run("restart", "web").returncode for _ in range(6)]
    assert codes == [0, 0, 0, 0, 0, 1]


def test_deaf_unit_is_killed_with_its_children(host: Host) -> None:
    """A unit that ignores SIGTERM is killed after TimeoutStopSec, and its children with it."""
    host.unit("web", "trap '' TERM; sleep 600 & echo $! > child; wait; wait", TimeoutStopSec="300ms",
              WorkingDirectory=str(host.folder))  # fmt: skip
    host.run("start", "web")
    child = host.folder / "child"
    until(lambda: child.exists() and child.read_text().strip())
    assert host.run("stop", "web").returncode == 0
    assert not _runs(int(child.read_text()))
    assert host.show("web")["Result"] == "timeout"


def test_unit_sees_its_files_and_not_the_session(host: Host) -> None:
    """Environment and EnvironmentFile reach the unit, the environment of whoever typed systemctl does not."""
    (host.folder / "env").write_text("# a comment\nDATABASE='postgresql://x'\n")
    host.unit("web", f"env > {host.folder}/seen; {FOREVER}",
              EnvironmentFile=f"{host.folder}/env", Environment='"A=one two" B=2')  # fmt: skip
    host.run("start", "web")
    until(lambda: "DATABASE" in _text(host.folder / "seen"))
    seen = _text(host.folder / "seen").splitlines()
    assert {"DATABASE=postgresql://x", "A=one two", "B=2"} <= set(seen)
    assert not [line for line in seen if line.startswith("SECRET")]


def test_missing_environment_file_fails_the_start(host: Host) -> None:
    """Without its secrets a unit is not started at all; a file marked with `-` may be missing."""
    host.unit("web", FOREVER, EnvironmentFile="/no/such/file")
    assert host.run("start", "web").returncode == 1
    host.unit("web", FOREVER, EnvironmentFile="-/no/such/file")
    assert host.run("start", "web").returncode == 0


def test_killed_supervisor_is_not_active(host: Host) -> None:
    """The state file of a supervisor that was killed is not believed, and a new start ends the orphan."""
    host.unit("web", FOREVER)
    host.run("start", "web")
    state = json.loads((host.folder / "run" / "web.service.json").read_text())
    os.kill(state["supervisor"], signal.SIGKILL)
    until(lambda: host.run("is-active", "web").stdout == "failed\n")
    assert host.run("start", "web").returncode == 0
    assert not _runs(state["pid"])


def test_two_restarts_at_once_leave_one_process(host: Host) -> None:
    """Jobs for one unit wait for each other."""
    host.unit("web", FOREVER)
    command = [str(host.folder / "bin" / "systemctl"), "restart", "web"]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=30) for process in running] == [0, 0, 0]
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    ours = {pid: parent for pid, parent, args in lines if args == f"/bin/sh {host.folder}/web.sh"}
    # Its child has the same name until it has become the next command.
    assert len([pid for pid, parent in ours.items() if parent not in ours]) == 1, found.stdout


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
