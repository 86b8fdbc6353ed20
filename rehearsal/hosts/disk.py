"""Small file systems for rehearsal hosts, which can be filled to the last byte.

Each is a tmpfs in a mount namespace of the rehearsal. An ordinary user may make one inside a user namespace, where
the machine allows it. Nobody else sees these file systems, and they end with the last process of the rehearsal.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

SIZE_BYTES = 128 * 1024 * 1024
"""More than a plan wants to be free. Only what is written takes memory."""
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_NOSUID_NODEV = 2 | 4
_MS_REC_PRIVATE = 16384 | 1 << 18
_MNT_DETACH = 2
_BALLAST = "ballast"
_CHUNK = 1024 * 1024
_PROJECT = str(Path(__file__).resolve().parents[2])


class NoDiskError(RuntimeError):
    """This machine does not allow file systems of our own; says why."""


def is_possible() -> bool:
    """Whether `separate` works here: tried in a child process, because it cannot be undone."""
    if sys.platform != "linux":
        return False
    code = (
        f"import sys; sys.path.insert(0, {_PROJECT!r}); from rehearsal.hosts.disk import separate; separate()"
    )
    return not subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False
    ).returncode


def separate() -> None:
    """Give this process and all its later children mounts of their own. Call it before the first thread.

    Raises NoDiskError where neither root nor a user namespace allows it.
    """
    if sys.platform != "linux":
        raise NoDiskError("file systems of our own need Linux")
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if uid != 0 or libc.unshare(_CLONE_NEWNS):
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
            raise NoDiskError(f"the machine allows no user namespaces ({os.strerror(ctypes.get_errno())})")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _mount(libc, "/", _MS_REC_PRIVATE)


def mount(folder: Path, size_bytes: int = SIZE_BYTES) -> None:
    """Make *folder* a file system of its own, after `separate`."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size_bytes},mode=0755"
    _mount(libc, str(folder), _MS_NOSUID_NODEV, source="rehearsal", kind="tmpfs", options=options)


def unmount(folder: Path) -> None:
    """Take the file system of *folder* away, also while it is in use; no effect where there is none."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH)


def fill(folder: Path) -> None:
    """Leave no byte free on the file system of *folder*."""
    with (folder / _BALLAST).open("wb", buffering=0) as file:
        size = _CHUNK
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def free(folder: Path) -> None:
    """Give the space back."""
    (folder / _BALLAST).unlink(missing_ok=True)


def _mount(
    libc: ctypes.CDLL, target: str, flags: int, *, source: str = "none", kind: str = "none", options: str = ""
) -> None:
    words = [word.encode() for word in (source, target, kind, options)]
    if libc.mount(*words[:3], ctypes.c_ulong(flags), words[3]):
        raise NoDiskError(
            f"the machine allows no file systems of our own ({os.strerror(ctypes.get_errno())})"
        )
