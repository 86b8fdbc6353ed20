"""The door to a rehearsal host: an SSH server on loopback, with keys of its own, that lets in only us.

The machine's own `sshd` serves where it is installed and comes up as the user we are; otherwise a server
of our own. Both look the same from outside: a port, a key file and a line for known_hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncssh

from rehearsal.postgres import free_port
from rehearsal.running import in_thread

Kind = Literal["openssh", "asyncssh"]

_START_SECONDS = 10.0
_PORTS_TRIED = 5
_SERVER = Path(__file__).with_name("ssh_server.py")
# SHLVL: the account's own bash would read its startup file for each command. A host's file is read by its session.
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers {user}
MaxStartups 100
ForceCommand {folder}/session
SetEnv SHLVL=2
Subsystem sftp {sftp}
"""


class SshdError(RuntimeError):
    """The SSH server did not come up; says why."""


class _PortTakenError(Exception):
    """Another process took the port after it was chosen."""


@dataclass(kw_only=True)
class Sshd:
    """A running SSH server for one host."""

    kind: Kind
    port: int
    user: str
    key_file: Path
    """The client's private key."""
    known_hosts_line: str
    process: subprocess.Popen[bytes]
    authorized_keys: Path
    """The keys that may log in. It is read at each login."""

    @classmethod
    async def start(
        cls,
        *,
        folder: Path,
        home: Path,
        key_file: Path,
        environment: Mapping[str, str],
        kind: Kind | None = None,
        tied: bool = True,
    ) -> Sshd:
        """Start a server whose commands run in *home* with *environment*; its own files go into *folder*.

        Without *kind* the machine's `sshd` is tried first. *tied* ends our own server when its starter dies.
        """
        return await in_thread(
            lambda: start(
                folder=folder, home=home, key_file=key_file, environment=environment, kind=kind, tied=tied
            )
        )

    def stop(self) -> None:
        """End the server. Commands that are still running are not its own, they live on."""
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)
        if self.process.stdin:
            self.process.stdin.close()


def make_key(path: Path) -> None:
    """Write a new ed25519 key pair to *path* and *path*.pub; the private half is ours alone."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="tds-rehearsal")
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    Path(f"{path}.pub").write_bytes(key.export_public_key())


def find_sshd() -> str | None:
    """The machine's `sshd`, by the absolute path it insists on."""
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def user_name() -> str:
    """The name we log in with: only our own user may log in on loopback."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.getuid()}"


def _known_hosts_line(folder: Path, port: int) -> str:
    kind, key = (folder / "host_key.pub").read_text(encoding="utf-8").split()[:2]
    return f"[127.0.0.1]:{port} {kind} {key}\n"


def start(
    *,
    folder: Path,
    home: Path,
    key_file: Path,
    environment: Mapping[str, str],
    kind: Kind | None = None,
    tied: bool = True,
) -> Sshd:
    """Start a server as `Sshd.start` does, for a thread that has no event loop."""
    folder.mkdir(parents=True, exist_ok=True)
    make_key(folder / "host_key")
    if not key_file.exists():
        make_key(key_file)
    shutil.copyfile(f"{key_file}.pub", folder / "authorized_keys")
    if kind == "openssh" or (kind is None and find_sshd()):
        try:
            return _start_openssh(folder, home, key_file, environment)
        except SshdError:
            if kind is not None:
                raise
    return _start_asyncssh(folder, home, key_file, environment, tied=tied)


def _start_asyncssh(
    folder: Path, home: Path, key_file: Path, environment: Mapping[str, str], *, tied: bool
) -> Sshd:
    with (folder / "server.log").open("ab") as log:
        # -P: the folder of the script is no place to import from.
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", str(_SERVER), "--host-key", str(folder / "host_key")),
                *(
                    "--authorized-keys",
                    str(folder / "authorized_keys"),
                    "--user",
                    user_name(),
                    *(["--tied"] if tied else []),
                ),
            ],
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=home,
            env=dict(environment),
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout as output:
        line = output.readline()
    if not line.strip():
        process.wait()
        reason = (folder / "server.log").read_text(encoding="utf-8", errors="replace").strip()
        raise SshdError(f"the SSH server did not start: {reason[-500:]}")
    return Sshd(
        kind="asyncssh",
        port=int(line),
        user=user_name(),
        key_file=key_file,
        known_hosts_line=_known_hosts_line(folder, int(line)),
        process=process,
        authorized_keys=folder / "authorized_keys",
    )


def _start_openssh(folder: Path, home: Path, key_file: Path, environment: Mapping[str, str]) -> Sshd:
    for _ in range(_PORTS_TRIED):
        with contextlib.suppress(_PortTakenError):
            return _start_openssh_on(free_port(), folder, home, key_file, environment)
    raise SshdError(f"{_PORTS_TRIED} ports in a row were taken before sshd could listen there")


def _start_openssh_on(
    port: int, folder: Path, home: Path, key_file: Path, environment: Mapping[str, str]
) -> Sshd:
    sshd = find_sshd()
    if sshd is None:
        raise SshdError("there is no sshd on this machine")
    user = user_name()
    sftp = next((path for path in _SFTP_SERVERS if Path(path).exists()), "internal-sftp")
    # A login shell would begin in the account's home with the account's PATH: the session begins on our host.
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    session = folder / "session"
    session.write_text(
        f"#!/bin/sh\n{exports}\ncd {shlex.quote(str(home))} || exit 1\n"
        # As bash does for a command that comes over SSH.
        '[ ! -f "$HOME/.bashrc" ] || . "$HOME/.bashrc"\n'
        'exec /bin/sh ${SSH_ORIGINAL_COMMAND:+-c "$SSH_ORIGINAL_COMMAND"}\n',
        encoding="utf-8",
    )
    session.chmod(0o755)
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(port=port, folder=folder, user=user, sftp=sftp))
    log_file = folder / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sshd, "-f", str(config), "-D", "-e"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
        )
    server = Sshd(
        kind="openssh",
        port=port,
        user=user,
        key_file=key_file,
        known_hosts_line=_known_hosts_line(folder, port),
        process=process,
        authorized_keys=folder / "authorized_keys",
    )
    try:
        asyncio.run(_prove(server))
    except BaseException as error:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if isinstance(error, SshdError) and "Address already in use" in log_file.read_text(errors="replace"):
            raise _PortTakenError from error
        raise
    return server


_SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)


async def _prove(server: Sshd) -> None:
    """Log in and run a command: a server that listens may still turn everybody away."""
    known = asyncssh.import_known_hosts(server.known_hosts_line)
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    reason = "no answer"
    while asyncio.get_running_loop().time() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError):
            try:
                async with asyncssh.connect(
                    "127.0.0.1",
                    server.port,
                    username=server.user,
                    client_keys=[str(server.key_file)],
                    known_hosts=known,
                    config=None,
                    agent_path=None,
                    connect_timeout=5,
                ) as connection:
                    answer = await connection.run("printf ready")
                if answer.stdout == "ready":
                    return
                reason = f"a command answered {answer.stdout!r} {answer.stderr!r}"
            except asyncssh.Error as error:
                reason = str(error)
            break
        await asyncio.sleep(0.03)
    if server.process.poll() is not None:
        reason = f"it ended with {server.process.returncode}"
    raise SshdError(f"the machine's sshd does not let us in: {reason}")
