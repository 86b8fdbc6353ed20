"""The POSIX shell scripts that run on a target host, which needs neither Python nor an agent.

Each takes its values as positional parameters, so that no value is pasted into shell text.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script(*names: str) -> str:
    """The text of `handlers/host/sh/<name>.sh`; several are joined in order, the functions first."""
    return "\n".join(
        files(__package__).joinpath(f"{name}.sh").read_text(encoding="utf-8").strip() for name in names
    )
