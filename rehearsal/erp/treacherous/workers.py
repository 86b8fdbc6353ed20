# mypy: ignore-errors
"""The workers of the sync queue: the sync core, with our own handler for items."""

import functools

from core import work
from reorder import handlers

from handlers.entities.apply import apply_events

if __name__ == "__main__":
    work(functools.partial(apply_events, handlers=handlers()))
