"""The journal of a rollback without the ledger: a private file of JSON lines on the machine that ran it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlers.state_folder import STATE, private_folder

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, kw_only=True)
class Journal:
    """A rollback that the ledger may not know yet."""

    path: Path
    begun_at: datetime
    back: tuple[str, ...]
    """The hosts that are back; empty when it did not end."""

    @property
    def sentence(self) -> str:
        """What happened, where it is written, and what tells the ledger."""
        names = f"{', '.join(self.back)} went" if self.back else "its hosts were told to go"
        return (
            f"{names} back without the ledger at {self.begun_at:%H:%M} UTC; `runbook rollback` or "
            f"`runbook resume` records it. The journal is {self.path}"
        )


def new_path(release_id: str, at: datetime) -> Path:
    """The file for a rollback that begins now."""
    return STATE / "from-hosts" / f"{release_id}-{at:{_STAMP}}.jsonl"


def append(journal: Path, values: Mapping[str, Any]) -> None:
    """Append one JSON object to the journal. A full disk of ours never stops the way back."""
    try:
        private_folder(journal.parent)
        journal.touch(mode=0o600)
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
    except OSError:
        return


def newest(release_id: str) -> Journal | None:
    """The newest journal of a release on this machine; None when there is none that can be read."""
    found = []
    with suppress(OSError):
        for path in (STATE / "from-hosts").glob(f"{release_id}-*.jsonl"):
            with suppress(ValueError):
                stamp = path.stem.removeprefix(f"{release_id}-")
                found.append((datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC), path))
    for begun_at, path in sorted(found, reverse=True):
        with suppress(OSError):
            return Journal(path=path, begun_at=begun_at, back=_back(path.read_text(encoding="utf-8")))
    return None


def _back(text: str) -> tuple[str, ...]:
    for line in reversed(text.splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            return tuple(host["host"] for host in json.loads(line)["ended"] if host["back"])
    return ()
