"""Private files: readable by their owner only, written atomically."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from handlers.environment.model import Environment
from handlers.state_folder import STATE, private_folder


def folder_of(environment: Environment, release_id: str) -> Path:
    """The folder of a release's evidence and report. Releases of two environments may have the same id."""
    return environment.report_folder(release_id)


def write_private(path: Path, text: str) -> str:
    """Write *text* to *path* with mode 0600 by an atomic rename; return its SHA-256."""
    data = text.encode("utf-8", "replace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def keep(environment: Environment, path: Path, text: str) -> str:
    """Write *text* to *path*, in private folders; return its SHA-256. The reports folder itself is the user's."""
    reports = environment.reports.directory
    private_folder(path.parent, ours=STATE if STATE in reports.parents else reports / environment.name)
    return write_private(path, text)
