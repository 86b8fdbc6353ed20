# mypy: ignore-errors
"""The commit that this process runs, read once: the folder may change under a running process."""

import subprocess
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _read() -> str:
    written = _HERE / "REVISION"
    if written.exists():
        return written.read_text(encoding="utf-8").strip()
    found = subprocess.run(
        ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
        cwd=_HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


REVISION = _read()
