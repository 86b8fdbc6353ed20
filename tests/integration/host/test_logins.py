"""Logins on real OpenSSH: host keys of every kind, key files in every form, agents, and jump hosts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from handlers.environment.model import Environment
from handlers.errors import ConfigError, OutcomeUnknown, Refused, Unreachable
from handlers.host.command import Command
from handlers.host.ssh import Shell
from rehearsal.hosts.sshd import find_sshd, user_name
from tests.integration.host.openssh import Client, Server, keygen, make_key, server
from tests.integration.host.ssh_target import CLOSED_PORT, open_host

pytestmark = pytest.mark.skipif(not find_sshd(), reason="no OpenSSH server on this machine")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The controller's key."""
    folder = tmp_path_factory.mktemp("client")
    return Client(folder=folder, key=make_key(folder / "key"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Iterator[Server]:
    """A host with three host keys; the client prefers the last one."""
    with server(tmp_path_factory.mktemp("host") / "sshd", "rsa", "ecdsa", "ed25519") as host:
        host.allow(client.key)
        yield host


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Iterator[Server]:
    """A jump host."""
    with server(tmp_path_factory.mktemp("bastion") / "sshd", settings="MaxStartups 10:100:10") as bastion:
        bastion.allow(client.key)
        yield bastion


@pytest.fixture(autouse=True)
def known(client: Client, host: Server, bastion: Server) -> None:
    """Both are recorded, whatever another test wrote."""
    client.known.write_text(host.known() + bastion.known())


def via(bastion: Server) -> dict[str, str]:
    return {"jump": f"{user_name()}@127.0.0.1:{bastion.port}"}


async def answer(environment: Environment) -> str:
    """What the first host answers."""
    async with open_host(environment, environment.hosts[0]) as shell:
        return (await shell.run(Command("echo", "here"))).stdout


async def refusal(environment: Environment) -> str:
    """The sentence with which the first host is refused."""
    with pytest.raises(Refused) as caught:
        await answer(environment)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


class TestHostKeys:
    @pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
    async def test_any_recorded_kind_is_enough(self, client: Client, host: Server, kind: str) -> None:
        """The order of the server's keys does not matter."""
        client.known.write_text(host.known(kind))
        assert await answer(client.environment(host)) == "here\n"

    async def test_a_host_certificate_of_a_recorded_ca_is_enough(
        self, client: Client, tmp_path: Path
    ) -> None:
        """For the name that the certificate is for, which an alias may give."""
        ca = make_key(tmp_path / "ca", "rsa")

        def certify(folder: Path) -> None:
            keygen("-s", ca, "-I", "web-1", "-h", "-n", "web-1.example.com", folder / "host_rsa.pub")

        settings = "HostCertificate {folder}/host_rsa-cert.pub"
        with server(tmp_path / "sshd", "rsa", "ed25519", settings=settings, prepare=certify) as certified:
            certified.allow(client.key)
            client.known.write_text(f"@cert-authority *.example.com {Path(f'{ca}.pub').read_text()}")
            good = client.environment(certified, host={"host_key_alias": "web-1.example.com"})
            assert await answer(good) == "here\n"
            other = client.environment(certified, host={"host_key_alias": "web-2.example.com"})
            assert "it is for web-1.example.com, not for web-2.example.com" in await refusal(other)
            assert "which is not in" in await refusal(client.environment(certified))


class TestKeyFiles:
    async def test_a_key_with_a_passphrase_logs_in(
        self, client: Client, host: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other forms of key files are in the unit tests."""
        key = make_key(tmp_path / "key", "ecdsa", "open it", "PEM")
        host.allow(client.key, key)
        monkeypatch.setenv("KEY_WORD", "open it")
        ssh = {"key_file": str(key), "key_passphrase": "env:KEY_WORD"}
        assert await answer(client.environment(host, ssh=ssh)) == "here\n"

    async def test_a_certificate_beside_the_key_is_used(
        self, client: Client, host: Server, tmp_path: Path
    ) -> None:
        """The host knows only the CA. A broken certificate is left aside."""
        ca, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
        keygen("-s", ca, "-I", "us", "-n", user_name(), f"{key}.pub")
        environment = client.environment(host, ssh={"key_file": str(key)})
        host.allow(ca, options="cert-authority")
        try:
            assert await answer(environment) == "here\n"
        finally:
            host.allow(client.key)
        Path(f"{key}-cert.pub").write_text("broken")
        assert "was refused" in await refusal(environment)
        host.allow(client.key, key)
        assert await answer(environment) == "here\n"


class Agent:
    """An ssh-agent of the test."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent"
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            if self.path.exists():
                break
            time.sleep(0.02)

    def add(self, key: Path, *options: str) -> None:
        subprocess.run(
            ["ssh-add", "-q", *options, key],
            env=os.environ | {"SSH_AUTH_SOCK": str(self.path)},
            check=True,
            capture_output=True,
        )


@pytest.fixture
def agent(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """A running agent without keys, named by the environment."""
    agent = Agent(short_folder)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    yield agent
    agent.process.terminate()
    agent.process.wait()


class TestAgents:
    async def test_a_key_of_the_agent_logs_in(
        self, client: Client, host: Server, agent: Agent, tmp_path: Path
    ) -> None:
        """Without any key file, and after another key that is refused."""
        key = make_key(tmp_path / "key", "rsa")
        host.allow(client.key, key)
        agent.add(make_key(tmp_path / "other"))
        agent.add(key)
        environment = client.environment(host, ssh={"key_file": None, "agent": True})
        assert await answer(environment) == "here\n"

    async def test_a_certificate_of_the_agent_logs_in(
        self, client: Client, host: Server, agent: Agent, tmp_path: Path
    ) -> None:
        """ssh-add loads the certificate beside the key; the host knows only the CA."""
        ca, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
        keygen("-s", ca, "-I", "us", "-n", user_name(), f"{key}.pub")
        agent.add(key)
        host.allow(ca, options="cert-authority")
        try:
            environment = client.environment(host, ssh={"key_file": None, "agent": True})
            assert await answer(environment) == "here\n"
        finally:
            host.allow(client.key)

    async def test_an_encrypted_file_selects_the_key_of_the_agent(
        self, client: Client, host: Server, agent: Agent, tmp_path: Path
    ) -> None:
        """As for OpenSSH; when the agent does not have that key, the sentence says so."""
        locked = make_key(tmp_path / "locked", passphrase="secret")
        plain = tmp_path / "plain"
        plain.write_bytes(locked.read_bytes())
        plain.chmod(0o600)
        keygen("-p", "-P", "secret", "-N", "", "-f", plain)
        host.allow(client.key, locked)
        environment = client.environment(host, ssh={"key_file": str(locked), "agent": True})
        agent.add(client.key)
        assert "does not have that key" in await refusal(environment)
        agent.add(plain)
        assert await answer(environment) == "here\n"

    async def test_an_agent_that_cannot_be_used_says_why(
        self, client: Client, host: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch, short_folder: Path
    ) -> None:
        """None, none that answers, one without a key, one that hangs: each within the connect timeout."""
        environment = client.environment(host, ssh={"key_file": None, "agent": True, "connect_seconds": 1})
        assert "has no key: add it with ssh-add" in await refusal(environment)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "nobody"))
        assert "cannot be used" in await refusal(environment)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(short_folder / "silent"))
            silent.listen()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "silent"))
            began = monotonic()
            assert "it does not answer" in await refusal(environment)
            assert monotonic() - began < 4
        monkeypatch.delenv("SSH_AUTH_SOCK")
        assert "SSH_AUTH_SOCK is not set" in await refusal(environment)

    async def test_an_agent_that_refuses_to_sign_is_named(
        self, client: Client, host: Server, agent: Agent, tmp_path: Path
    ) -> None:
        """A key that wants a confirmation, and nobody is there to give it."""
        key = make_key(tmp_path / "key")
        host.allow(client.key, key)
        agent.add(key, "-c")
        environment = client.environment(host, ssh={"key_file": None, "agent": True})
        assert "the SSH agent refuses to sign with" in await refusal(environment)

    async def test_neither_key_nor_agent_is_refused_when_the_file_is_read(
        self, client: Client, host: Server
    ) -> None:
        """The sentence names both keys."""
        with pytest.raises(ConfigError, match=r"ssh: key_file is missing: set it, or agent = true"):
            client.environment(host, ssh={"key_file": None})


class TestJumpHosts:
    async def test_commands_and_floods_go_through(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """By ssh.jump, by the host's own jump, and through two jump hosts; `none` goes directly."""
        both = f"{via(bastion)['jump']},127.0.0.1:{host.port}"
        for environment in (
            client.environment(host, ssh=via(bastion)),
            client.environment(host, host=via(bastion)),
            client.environment(host, ssh={"jump": "nobody@127.0.0.1:1"}, host={"jump": "none"}),
            client.environment(host, ssh={"jump": both}),
        ):
            assert await answer(environment) == "here\n"
        async with open_host(environment, environment.hosts[0]) as shell:
            flood = await shell.run(Command.procedure("yes | head -c 3000000; echo end", title="t"))
        assert flood.stdout.endswith("end\n")

    async def test_the_jump_hosts_key_is_checked_as_well(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """Unknown and changed keys of the jump host are refused, and named as its own."""
        environment = client.environment(host, ssh=via(bastion))
        client.known.write_text(host.known())
        assert await refusal(environment) != ""
        assert f"jump host 127.0.0.1:{bastion.port} has the host key" in await refusal(environment)
        client.known.write_text(host.known() + host.known(name=f"[127.0.0.1]:{bastion.port}"))
        assert f"jump host 127.0.0.1:{bastion.port}: host key changed" in await refusal(environment)
        client.known.write_text(bastion.known())
        assert "web-1 (127.0.0.1" in await refusal(environment)

    async def test_a_dead_jump_host_is_named_and_the_host_is_unreachable(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """One that refuses, one that is silent, one that cannot reach the host: within the timeouts."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            for jump in (CLOSED_PORT, port):
                environment = client.environment(
                    host, ssh={"jump": f"127.0.0.1:{jump}", "connect_seconds": 0.5}
                )
                began = monotonic()
                with pytest.raises(Unreachable, match=rf"^web-1 .*: its jump host 127\.0\.0\.1:{jump} "):
                    await answer(environment)
                assert monotonic() - began < 4
            environment = client.environment(host, ssh=via(bastion) | {"connect_seconds": 0.5})
            closed = environment.hosts[0].model_copy(update={"port": CLOSED_PORT})
            with pytest.raises(Unreachable, match=r"^web-1 .* cannot be reached from the jump host"):
                async with open_host(environment, closed):
                    pass
            frozen = environment.hosts[0].model_copy(update={"port": port})
            began = monotonic()
            with pytest.raises(Unreachable, match=r"^web-1 .* handshake fails"):
                async with open_host(environment, frozen):
                    pass
            assert monotonic() - began < 6

    async def test_a_jump_host_that_forbids_forwarding_is_refused(
        self, client: Client, host: Server, tmp_path: Path
    ) -> None:
        """A setting that somebody has to change: the sentence names it."""
        with server(tmp_path / "strict", settings="AllowTcpForwarding no") as strict:
            strict.allow(client.key)
            client.known.write_text(host.known() + strict.known())
            assert "AllowTcpForwarding" in await refusal(client.environment(host, ssh=via(strict)))

    async def test_a_deadline_holds_through_the_jump_host_and_the_next_command_connects_again(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """A command that hangs is ended, and leaves no connection to the jump host behind."""
        environment = client.environment(host, ssh=via(bastion))
        async with open_host(environment, environment.hosts[0]) as shell:
            began = monotonic()
            with pytest.raises(OutcomeUnknown):
                await shell.run(Command("sleep", "30", changes=True), limit=0.5)
            assert monotonic() - began < 3
            assert (await shell.run(Command("echo", "again"))).stdout == "again\n"
            assert len(_connections(bastion.port)) == 1
        assert await _closed(bastion.port)

    async def test_a_jump_host_that_freezes_ends_at_the_deadline(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """Its kernel still answers; the command is given up, and a new login says who is silent."""
        environment = client.environment(host, ssh=via(bastion) | {"connect_seconds": 1})
        async with open_host(environment, environment.hosts[0]) as shell:
            frozen = [bastion.process.pid, *_descendants(bastion.process.pid)]
            for process in frozen:
                os.kill(process, signal.SIGSTOP)
            try:
                began = monotonic()
                with pytest.raises(Unreachable):
                    await shell.run(Command("echo", "here"), limit=1)
                with pytest.raises(Unreachable, match=r"^web-1 .*: its jump host .* the SSH handshake fails"):
                    await shell.run(Command("echo", "here"), limit=1)
                assert monotonic() - began < 10
            finally:
                for process in frozen:
                    os.kill(process, signal.SIGCONT)
            assert (await shell.run(Command("echo", "again"))).stdout == "again\n"

    async def test_many_hosts_through_one_jump_host_all_connect(
        self, client: Client, host: Server, bastion: Server
    ) -> None:
        """Twenty at once, although its sshd drops logins beyond ten that are in progress (MaxStartups)."""
        environment = client.environment(host, ssh=via(bastion) | {"connect_seconds": 20})
        shells = [Shell(environment, environment.hosts[0]) for _ in range(20)]
        try:
            results = await asyncio.gather(*(shell.run(Command("echo", "here")) for shell in shells))
        finally:
            for shell in shells:
                shell.close()
        assert [result.stdout for result in results] == ["here\n"] * 20


def _descendants(process: int) -> list[int]:
    """The processes below *process*."""
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found += [int(child), *_descendants(int(child))]
    return found


def _connections(port: int) -> list[str]:
    """The established connections of this process's machine to a port on loopback."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [row for row in rows if row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "01"]


async def _closed(port: int) -> bool:
    for _ in range(200):
        if not _connections(port):
            return True
        await asyncio.sleep(0.02)
    return False


_TWO_FACTORS = "AuthenticationMethods publickey,keyboard-interactive\nKbdInteractiveAuthentication yes"


class TestOtherLogins:
    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            (_TWO_FACTORS, "needs keyboard-interactive as well"),
            ("PubkeyAuthentication no\nPasswordAuthentication yes", "sshd accepts only password"),
            ("Ciphers chacha20-poly1305@openssh.com", "no algorithm in common"),
            ("AllowUsers somebody-else", "was refused"),
        ],
    )  # fmt: skip
    async def test_a_login_that_cannot_work_is_one_sentence(
        self, client: Client, tmp_path: Path, settings: str, sentence: str
    ) -> None:
        """A second factor, no keys allowed, no common cipher, another user: refused, with what to change."""
        with server(tmp_path / "strict", settings=settings) as strict:
            strict.allow(client.key)
            client.known.write_text(strict.known())
            refused = await refusal(client.environment(strict))
        assert sentence in refused
        assert refused.startswith("web-1 ")

    async def test_too_many_keys_are_named_as_such(
        self, client: Client, agent: Agent, tmp_path: Path
    ) -> None:
        """sshd closes the connection after MaxAuthTries: the agent has too many keys before the right one."""
        with server(tmp_path / "strict", settings="MaxAuthTries 3") as strict:
            strict.allow(client.key)
            client.known.write_text(strict.known())
            for number in range(5):
                agent.add(make_key(tmp_path / f"key{number}"))
            agent.add(client.key)
            sentence = await refusal(client.environment(strict, ssh={"key_file": None, "agent": True}))
        assert "MaxAuthTries" in sentence


@pytest.mark.parametrize("jump", ["", "user@", "a b", "bastion:99999", "bastion:x", "a,,b", "user@bastion/x"])
def test_a_jump_host_that_cannot_be_read_is_named(client: Client, host: Server, jump: str) -> None:
    """When the file is read, with the key and the form."""
    with pytest.raises(ConfigError, match=r"ssh\.jump: .* is not a jump host: it must look like"):
        client.environment(host, ssh={"jump": jump})
