"""An SSH server for one rehearsal host, in a process of its own: every command is a real process.

It serves where the machine has no `sshd` that an ordinary user may run. It is independent of the library
that the runbook connects with, so that an error in one does not cancel out in the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys

import asyncssh

_CHUNK = 65536


class _Server(asyncssh.SSHServer):
    """Lets in one user with one key. Its file is read at each login, as the real server does."""

    def __init__(self, user: str, authorized_keys: str) -> None:
        self._user = user
        self._authorized_keys = authorized_keys

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        try:
            allowed = asyncssh.read_public_key(self._authorized_keys)
        except (OSError, asyncssh.KeyImportError):
            return False
        return username == self._user and key.public_data == allowed.public_data


# As bash does for a command that comes over SSH.
_LOGIN_SHELL = '[ ! -f "$HOME/.bashrc" ] || . "$HOME/.bashrc"; exec /bin/sh -c "$1"'


async def _serve_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run the command with `sh`, carry its bytes both ways and report how it ended.

    As with the real server, a client that goes away ends nothing: the command only finds its pipes closed.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", *(("-c", _LOGIN_SHELL, "sh", process.command) if process.command else ())),
        stdin=asyncio.subprocess.PIPE,
        stdout=out_write,
        stderr=err_write,
        start_new_session=True,
    )
    os.close(out_write)
    os.close(err_write)
    feeding = asyncio.create_task(_feed(process, child))
    outputs = [
        asyncio.create_task(_carry(out_read, process.stdout)),
        asyncio.create_task(_carry(err_read, process.stderr)),
    ]
    gone = asyncio.create_task(process.channel.wait_closed())
    finished = asyncio.create_task(_finish(child, outputs))
    try:
        await asyncio.wait([finished, gone], return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            return
        status = child.returncode or 0
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)
    finally:
        tasks = (feeding, gone, finished, *outputs)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nobody else waits for the command when its client has gone.
        await child.wait()


async def _finish(child: asyncio.subprocess.Process, outputs: list[asyncio.Task[None]]) -> None:
    """Wait for the command's end and the last of its output; a client that hangs up is no error of ours."""
    await asyncio.gather(*outputs, return_exceptions=True)
    await child.wait()


async def _carry(source: int, target: asyncssh.SSHWriter[bytes]) -> None:
    """Carry everything that comes out of the pipe *source* to the client, at the client's pace."""
    reader = asyncio.StreamReader(limit=_CHUNK)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", buffering=0)
    )
    try:
        while data := await reader.read(_CHUNK):
            target.write(data)
            await target.drain()
    finally:
        transport.close()


async def _feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    """Carry the client's input to the command; a signal that the client sends goes to the whole group."""
    assert child.stdin is not None
    try:
        while True:
            try:
                data = await process.stdin.read(_CHUNK)
            except asyncssh.SignalReceived as received:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.Signals[f"SIG{received.signal}"])
                continue
            if not data:
                return
            child.stdin.write(data)
            await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError, asyncssh.Error):
        return
    finally:
        child.stdin.close()


async def serve(*, host_key: str, authorized_keys: str, user: str, tied: bool) -> None:
    """Serve on a free loopback port, print it, and go on until SIGTERM or, when *tied*, the end of stdin."""
    server = await asyncssh.create_server(
        lambda: _Server(user, authorized_keys),
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        process_factory=_serve_command,
        sftp_factory=True,
        encoding=None,
        keepalive_interval=0,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if tied:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.get_port(), flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host-key", required=True)
    parser.add_argument(
        "--authorized-keys", required=True, help="the public half of the only key that is let in"
    )
    parser.add_argument("--user", required=True)
    parser.add_argument("--tied", action="store_true", help="end when standard input ends")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(**vars(options)))


if __name__ == "__main__":
    main()
