# mypy: ignore-errors
"""What happens in the world while the application runs, and that it does not stand: here a file says so.

A service that it calls goes away, a licence expires, a table of the year ends. `rehearsal.cues` writes the files.
"""

import os
from pathlib import Path


def given(name: str) -> bool:
    """Whether it has happened."""
    folder = os.environ.get("ERP_CUES")
    return folder is not None and Path(folder, name).exists()
