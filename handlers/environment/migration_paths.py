"""The keys of an environment file about the ERP's own migrations."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from handlers.environment.section import Section


def _is_a_glob(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.*?/\[\]@+-]{1,200}", text) or text.startswith("/"):
        raise ValueError(f"{text!r} is no pattern of files, such as **/alembic/versions/*.py")
    return text


class Migrations(Section):
    """Which files of the ERP change its database's schema."""

    paths: tuple[Annotated[str, AfterValidator(_is_a_glob)], ...] = (
        "**/migrations/**/*.py",
        "**/migrations/**/*.sql",
        "**/alembic/versions/*.py",
    )
    """Git's glob patterns from the root of the repository. Empty: no file is looked at."""
