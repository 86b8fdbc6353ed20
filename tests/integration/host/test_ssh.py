"""SSH: known hosts only, a timeout on every wait, and an unknown outcome is never guessed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import asyncssh
import pytest

from handlers.environment.model import Environment
from handlers.errors import OutcomeUnknown, Refused, Unreachable
from handlers.host.command import Command
from handlers.host.framing import OUTPUT_MAX
from handlers.host.ssh import Shell, open_hosts
from rehearsal.hosts.sshd import SshdError, find_sshd, make_key
from tests.integration.host.ssh_target import CLOSED_PORT, Target, open_host, serve

KINDS = ["asyncssh", *(["openssh"] if find_sshd() else [])]


@pytest.fixture(params=KINDS)
async def target(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """One host, by each available SSH server."""
    try:
        async with serve(tmp_path, kind=request.param) as target:
            yield target
    except SshdError as error:
        pytest.skip(f"this machine's own server does not come up: {error}")


@pytest.fixture
async def shell(target: Target) -> AsyncIterator[Shell]:
    """A connection to it."""
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        yield shell


async def refusal(environment: Environment) -> str:
    """The sentence with which the first host is refused."""
    with pytest.raises(Refused) as caught:
        async with open_host(environment, environment.hosts[0]):
            pass
    return str(caught.value)


async def test_both_streams_and_the_status_come_back(shell: Shell) -> None:
    """The result has stdout, stderr and the exit status of the command."""
    result = await shell.run(Command.procedure("echo out; echo err >&2; exit 7", title="t"))
    assert (result.stdout, result.stderr, result.exit_status) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    "hostile", ["it's", "$(touch /nope)", "a;b", "`id`", "-n", "ä\nö", '"', "\\", "*", "!x"]
)
async def test_a_hostile_word_arrives_as_it_is(shell: Shell, hostile: str) -> None:
    """Nothing in a word is read by the shell."""
    assert (await shell.run(Command("printf", "[%s]", hostile))).stdout == f"[{hostile}]"
    procedure = Command.procedure('printf "[%s]" "$1"', hostile, title="t")
    assert (await shell.run(procedure)).stdout == f"[{hostile}]"


NOISE = {
    "prints": "echo 'Welcome to this host'; echo 'disk is 91 % full' >&2",
    "prints without a newline": "printf 'Welcome'; printf 'warning' >&2",
    "prints much": "i=0; while [ $i -lt 2000 ]; do echo 'a long message of the day'; i=$((i + 1)); done",
    "fails": "no-such-command; false",
    "turns on tracing": "set -x",
    "changes the folder": "cd /",
    "asks a question": "printf 'which project? '; read project",
}


@pytest.mark.parametrize("startup", NOISE.values(), ids=NOISE)
async def test_a_startup_file_that_prints_is_no_part_of_an_answer(
    target: Target, shell: Shell, startup: str
) -> None:
    """Only the command's own output comes back, on both streams, with its exit status."""
    (target.hosts["web-1"] / ".bashrc").write_text(f"{startup}\n")
    result = await shell.run(Command.procedure("echo out; echo err >&2; exit 7", title="t"))
    assert (result.stdout, result.stderr, result.exit_status) == ("out\n", "err\n", 7)
    assert (await shell.run(Command("printf", "no newline"))).stdout == "no newline"
    assert (await shell.run(Command("true"))).stdout == ""


@pytest.mark.parametrize(
    "startup",
    [
        "echo 'This account is not available'; exit 1",
        "exec cat >/dev/null",
        "cat >/dev/null",
        "i=0; while [ $i -lt 22 ]; do read line; i=$((i + 1)); done",
    ],
    ids=["exits", "becomes another program", "reads everything", "reads a part of the command"],
)
async def test_a_login_shell_that_runs_no_command_is_named(
    target: Target, shell: Shell, startup: str
) -> None:
    """One that exits or swallows its input never ran the command: refused, with the host and what it printed."""
    (target.hosts["web-1"] / ".bashrc").write_text(f"{startup}\n")
    with pytest.raises(
        Refused, match=r"^web-1 .*the login shell of .* does not run commands; .*\.bashrc"
    ) as caught:
        await shell.run(Command("touch", "changed", changes=True))
    assert ("not available" in str(caught.value)) == ("not available" in startup)
    assert not (target.hosts["web-1"] / "changed").exists()


async def test_the_command_is_in_no_process_list(shell: Shell) -> None:
    """The arguments of the login shell do not contain the command, so a secret in a procedure does not leak."""
    marker = "planted-4711"
    looking = f"cat /proc/$$/cmdline /proc/$PPID/cmdline | tr '\\0' ' '; : {marker}"
    result = await shell.run(Command.procedure(looking, title="t"))
    assert result.stdout
    assert marker not in result.stdout


async def test_a_flood_is_capped_and_both_ends_are_kept(shell: Shell) -> None:
    """50 MB of output end in bounded memory, with the beginning and the end readable."""
    flood = "echo first; yes 0123456789abcdef | head -c 50000000; echo last; yes err | head -c 3000000 >&2"
    result = await shell.run(Command.procedure(flood, title="t"), limit=60)
    assert result.exit_status == 0
    assert len(result.stdout) < OUTPUT_MAX + 100
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert "bytes left out" in result.stdout


async def test_an_unknown_host_key_is_refused(target: Target) -> None:
    """A host whose key is not recorded is refused, with the file and what to do."""
    (target.folder / "known_hosts").write_text("")
    sentence = await refusal(target.environment())
    assert str(target.folder / "known_hosts") in sentence
    assert "add it" in sentence


async def test_a_changed_host_key_is_refused(target: Target) -> None:
    """Another key than the recorded one is refused, with both fingerprints."""
    make_key(target.folder / "other")
    kind, key = (target.folder / "other.pub").read_text().split()[:2]
    port = target.environment().hosts[0].port
    (target.folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    sentence = await refusal(target.environment())
    assert "host key changed" in sentence
    assert sentence.count("SHA256:") == 2


async def test_a_missing_known_hosts_file_is_refused(target: Target) -> None:
    """Without the known hosts file every host is refused."""
    (target.folder / "known_hosts").unlink()
    assert "ssh.known_hosts_file" in await refusal(target.environment())


async def test_a_wrong_client_key_is_refused(target: Target) -> None:
    """A key that the host does not accept names the user, the file and the host."""
    make_key(target.folder / "stranger")
    environment = target.environment(ssh={"key_file": str(target.folder / "stranger")})
    sentence = await refusal(environment)
    assert environment.ssh.user in sentence
    assert "stranger" in sentence
    assert "web-1" in sentence
    assert "authorized_keys" in sentence


async def test_a_key_file_that_is_none_is_refused(target: Target) -> None:
    """A missing file, a text that is no key, an encrypted key: each has its own sentence."""
    junk, locked = target.folder / "junk", target.folder / "locked"
    junk.write_text("no key")
    key = asyncssh.generate_private_key("ssh-ed25519")
    locked.write_bytes(key.export_private_key(passphrase="secret"))
    expected = {
        target.folder / "none": "cannot read",
        junk: "not a usable private key",
        locked: "is encrypted",
    }
    for file, words in expected.items():
        assert words in await refusal(target.environment(ssh={"key_file": str(file)}))


async def test_a_closed_port_is_unreachable_at_once(target: Target) -> None:
    """A host that is down raises Unreachable with its address."""
    environment = target.environment()
    down = environment.hosts[0].model_copy(update={"port": CLOSED_PORT})
    began = monotonic()
    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{CLOSED_PORT}\b"):
        async with open_host(environment, down):
            pass
    assert monotonic() - began < 2


async def test_a_port_that_says_nothing_is_given_up(target: Target) -> None:
    """A server that accepts and sends no banner does not block longer than the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = target.environment(ssh={"connect_seconds": 1})
        frozen = environment.hosts[0].model_copy(update={"port": silent.getsockname()[1]})
        began = monotonic()
        with pytest.raises(Unreachable):
            async with open_host(environment, frozen):
                pass
        assert monotonic() - began < 5


async def test_a_command_without_end_is_given_up(shell: Shell) -> None:
    """The timeout ends the wait; for a command that changes the host the outcome is then unknown."""
    for changes, expected in ((False, Unreachable), (True, OutcomeUnknown)):
        began = monotonic()
        with pytest.raises(expected, match="did not finish within"):
            await shell.run(Command("sleep", 5, changes=changes), limit=0.5)
        assert monotonic() - began < 3


async def test_a_killed_command_is_never_a_success_or_a_failure(shell: Shell) -> None:
    """Without an exit status the outcome is unknown."""
    with pytest.raises(OutcomeUnknown, match="without an exit status"):
        await shell.run(Command.procedure("kill -9 $$", title="t", changes=True))
    with pytest.raises(Unreachable):
        await shell.run(Command.procedure("kill -9 $$", title="t"))


async def test_after_a_lost_connection_the_next_command_reconnects(shell: Shell) -> None:
    """A shell reconnects after a lost connection."""
    with pytest.raises(Unreachable):
        await shell.run(Command("sleep", 5), limit=0.3)
    assert (await shell.run(Command("echo", "back"))).stdout == "back\n"


async def test_cancelling_closes_the_connection_at_once(shell: Shell) -> None:
    """A cancelled wait ends immediately, not when the command ends."""
    waiting = asyncio.create_task(shell.run(Command("sleep", 30)))
    await shell.run(Command("true"))
    began = monotonic()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert monotonic() - began < 1.5


async def test_many_commands_share_one_connection(shell: Shell) -> None:
    """More commands at once than a server allows sessions simply queue."""
    results = await asyncio.gather(*(shell.run(Command("echo", n)) for n in range(25)))
    assert [int(result.stdout) for result in results] == list(range(25))


async def test_a_frozen_server_is_noticed_when_a_session_is_opened(tmp_path: Path) -> None:
    """TCP of a frozen server is healthy: only the limit on opening a session notices."""
    async with serve(tmp_path, kind="asyncssh") as target:
        environment = target.environment(ssh={"connect_seconds": 1})
        server = target.servers["web-1"].process
        async with open_host(environment, environment.hosts[0]) as shell:
            server.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(Unreachable):
                    await shell.run(Command("true"))
            finally:
                server.send_signal(signal.SIGCONT)
            assert (await shell.run(Command("echo", "thawed"))).good


async def test_one_dead_host_is_named_and_leaves_nothing_open(tmp_path: Path) -> None:
    """Opening all hosts fails as a whole, in one sentence, with the good connections closed."""
    async with serve(tmp_path, "web-1", "web-2") as target:
        environment = target.environment()
        hosts = (environment.hosts[0], environment.hosts[1].model_copy(update={"port": CLOSED_PORT}))
        broken = environment.model_copy(update={"hosts": hosts})
        with pytest.raises(Unreachable, match="web-2"):
            async with open_hosts(broken):
                pass
        async with open_hosts(broken, connected=False) as shells:
            assert (await shells[0].run(Command("true"))).good
            with pytest.raises(Unreachable):
                await shells[1].run(Command("true"))


def test_no_thread_is_left(tmp_path: Path) -> None:
    """When everything is closed, the process has no thread of ours and no open socket more than before."""

    async def connect() -> None:
        async with serve(tmp_path) as target:
            environment = target.environment()
            async with open_host(environment, environment.hosts[0]) as shell:
                await shell.run(Command("true"))

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    asyncio.run(connect())
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
