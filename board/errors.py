"""What cannot be answered, and a value or the reason why there is none."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from handlers.errors import Refused, RunbookError

T = TypeVar("T")


class NotThere(Refused):
    """Something that this board does not have."""


async def or_error(work: Awaitable[T]) -> T | RunbookError:
    """What *work* returns, or why it does not."""
    try:
        return await work
    except RunbookError as error:
        return error
