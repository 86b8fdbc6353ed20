"""The named SQL queries of a module, from the `.sql` file next to it.

A file has any number of queries. Each begins with a line `-- name --`, followed by a comment with its purpose.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from sqlalchemy import TextClause, text

_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)


@cache
def queries(module: str) -> dict[str, TextClause]:
    """The queries of *module* (the caller's `__name__`) by name, ready to execute with bound parameters."""
    package, _, leaf = module.rpartition(".")
    source = files(package).joinpath(f"{leaf}.sql").read_text(encoding="utf-8")
    parts = _HEADING.split(source)
    return {name: text(body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
