"""What the tables of an environment file have in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=86_400 * 2)]


class Section(BaseModel):
    """A table of the file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def is_a_web_address(text: str) -> str:
    """*text* if it is an http or https address with a host. Raises ValueError."""
    # The text is not shown: it may contain a password.
    if not re.match(r"https?://[^/\s]", text):
        raise ValueError("must begin with http:// or https:// and a host name")
    return text
