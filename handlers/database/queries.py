"""The queries of a module: in the `.sql` file beside it, each with a name and a sentence that says what it is for.

A file holds any number of queries; each begins with a line `-- name --`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from sqlalchemy import TextClause, text

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def queries(module: str) -> dict[str, TextClause]:
    """All queries of *module*, a caller's `__name__`, by name, ready to be executed with bound parameters."""
    package, _, leaf = module.rpartition(".")
    source = files(package).joinpath(f"{leaf}.sql").read_text(encoding="utf-8")
    parts = _HEADING.split(source)
    return {name: text(body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
