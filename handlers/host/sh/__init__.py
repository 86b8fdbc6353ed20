"""What runs on a target host, in files of POSIX shell: no Python and no agent is needed there.

Each file says what it is for and takes its values as positional parameters, so that none is pasted into text.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script(*names: str) -> str:
    """The text of `handlers/host/sh/<name>.sh`, several joined: functions first, then what uses them."""
    return "\n".join(
        files(__package__).joinpath(f"{name}.sh").read_text(encoding="utf-8").strip() for name in names
    )
