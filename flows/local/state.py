"""Where a controller keeps what outlives a command: logs, reports, Prefect's files."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "tds-runbook"
"""The user's folder for such things; `XDG_STATE_HOME` moves it."""
