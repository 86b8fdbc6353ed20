"""One log line for each refused call: which rule at the source loses webhooks, and why. Never a payload's value."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from handlers.entities import registry
from handlers.queue.event import EntityType
from handlers.receiver.rejected import Rejected

log = logging.getLogger(__name__)

LINES_MAX, WINDOW_SECONDS = 200, 10.0
"""More refusals in the same window are only counted: a flood of bad calls must not fill the disk."""
_NAME_MAX = 40


class RefusalLog:
    """The refusals of one receiver."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._window_began = now()
        self._refused = 0

    def call(self, rejected: Rejected, *, kind: str, address: str | None, length: str) -> None:
        """Log that a webhook was refused. *kind* is the name in its URL, *length* its Content-Length."""
        words = [f"{rejected.status} {rejected.reason}"]
        if field := _known(kind, rejected.field):
            words.append(f"in {field}")
        self._line(f"{' '.join(words)}: {_name(kind)}", address, length)

    def connection(self, status: int, sentence: str, address: str | None) -> None:
        """Log that a connection was closed before it had sent a whole request."""
        self._line(f"{status} {sentence}", address, "")

    def _line(self, what: str, address: str | None, length: str) -> None:
        now = self._now()
        if now - self._window_began >= WINDOW_SECONDS:
            if self._refused > LINES_MAX:
                log.warning("%d more calls were refused without a line", self._refused - LINES_MAX)
            self._window_began, self._refused = now, 0
        self._refused += 1
        if self._refused <= LINES_MAX:
            size = f", {length} bytes" if length.isdecimal() and len(length) <= 20 else ""
            log.warning("refused %s, from %s%s", what, address or "an unknown address", size)


def _name(kind: str) -> str:
    """The name in the URL: it comes from outside, so what is no letter is replaced."""
    return re.sub(r"[^A-Za-z0-9_-]", "?", kind[:_NAME_MAX]) or "no kind"


def _known(kind: str, field: str) -> str:
    """The payload's key that was wrong, if it is one of ours; the caller may have any other."""
    root = re.split(r"[.\[]", field, maxsplit=1)[0]
    entity = next((entity for entity in EntityType if entity.value == kind), None)
    if entity is None:
        return ""
    handler = registry.handler(entity)
    return field[:80] if root == "(body)" or root in handler.keys or root in handler.id_keys else ""
