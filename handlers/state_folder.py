"""The controller's state folder, for files that outlive a command: logs, reports, Prefect's files."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tds-runbook"
"""`XDG_STATE_HOME` changes its place."""
