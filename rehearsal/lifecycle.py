"""The folder of a rehearsal, who owns it, and how everything that belongs to it is taken away again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rehearsal import processes

_PREFIX = "tds-rehearsal-"
_OWNER_FILE = "owner.json"
_NEWBORN_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that started a rehearsal. A kept one has no owner and stays until it is ended by its id."""

    id: str
    pid: int
    started_at: str | None
    kept: bool = False

    def lives(self) -> bool:
        """Whether the starter still runs: the same process, not a later one with its number."""
        started_at = processes.started_at(self.pid)
        return started_at is not None and started_at == self.started_at


def base(parent: Path | None = None) -> Path:
    """Where the folders of rehearsals are."""
    return parent or Path(tempfile.gettempdir()).resolve()


def make(parent: Path | None = None) -> tuple[str, Path]:
    """A new id and its folder, which is ours alone; what died without cleaning up is cleared away first."""
    sweep(parent)
    rehearsal_id = f"{os.getpid()}-{secrets.token_hex(2)}"
    folder = base(parent) / f"{_PREFIX}{rehearsal_id}"
    folder.mkdir(mode=0o700, parents=True)
    _write(folder, Owner(id=rehearsal_id, pid=os.getpid(), started_at=processes.started_at(os.getpid())))
    return rehearsal_id, folder


def keep(rehearsal_id: str, folder: Path) -> None:
    """Leave the rehearsal running when its starter ends."""
    _write(folder, Owner(id=rehearsal_id, pid=os.getpid(), started_at=None, kept=True))


def clear(rehearsal_id: str, folder: Path) -> None:
    """End every process of a rehearsal and remove its folder."""
    processes.end(rehearsal_id, folder)
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        # A process that was just killed may still have been writing.
        processes.end(rehearsal_id, folder)
        time.sleep(0.05)
    raise RuntimeError(f"cannot remove {folder}")


def sweep(parent: Path | None = None) -> list[str]:
    """Clear every rehearsal of ours whose starter was killed; returns their ids."""
    orphans = [(owner.id, folder) for folder, owner in _all(parent) if not owner.kept and not owner.lives()]
    for rehearsal_id, folder in orphans:
        clear(rehearsal_id, folder)
    if orphans:
        # One that was between fork and exec when its starter was killed has our mark only a moment later.
        time.sleep(_NEWBORN_SECONDS)
        for rehearsal_id, folder in orphans:
            clear(rehearsal_id, folder)
    return [rehearsal_id for rehearsal_id, _ in orphans]


def kept(parent: Path | None = None) -> list[str]:
    """The ids of the rehearsals that were kept and still run."""
    return sorted(owner.id for _, owner in _all(parent) if owner.kept)


def end(rehearsal_id: str, parent: Path | None = None) -> bool:
    """End a rehearsal by its id; False when there is none."""
    for folder, owner in _all(parent):
        if owner.id == rehearsal_id:
            clear(owner.id, folder)
            return True
    return False


def _all(parent: Path | None) -> list[tuple[Path, Owner]]:
    found = []
    for folder in base(parent).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                found.append((folder, _read(folder)))
    return found


def _read(folder: Path) -> Owner:
    """The owner's note; where it could not be written any more, the folder's name tells the process."""
    try:
        return Owner(**json.loads((folder / _OWNER_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        name = folder.name.removeprefix(_PREFIX)
        pid = int(name.partition("-")[0]) if name.partition("-")[0].isdigit() else 0
        return Owner(id=name, pid=pid, started_at=processes.started_at(pid) if pid else None)


def _write(folder: Path, owner: Owner) -> None:
    beside = folder / f".{_OWNER_FILE}"
    beside.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    beside.replace(folder / _OWNER_FILE)
