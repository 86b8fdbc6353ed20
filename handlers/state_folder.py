"""The controller's private state folder, for files that outlive a command: logs, reports, Prefect's files."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

STATE = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tds-runbook"
"""`XDG_STATE_HOME` changes its place."""


def private_folder(path: Path, *, ours: Path | None = None) -> Path:
    """Create *path* and every missing folder above it, for their owner only (mode 0700); returns *path*.

    Folders from *ours* (default: STATE) down to *path* get that mode also when they exist. Those above belong to the
    user and are never changed.
    """
    missing = []
    folder = path
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    top = ours or STATE
    for folder in [path, *path.parents]:
        if folder == top or top in folder.parents:
            _repair(folder)
    return path


def _repair(folder: Path) -> None:
    with contextlib.suppress(OSError):
        found = folder.lstat()
        lax = stat.S_IMODE(found.st_mode) & 0o077
        if lax and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            folder.chmod(0o700)
