"""How the receiver says no: a status, one sentence, and a reason that can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Rejected(Exception):
    """A call that is not accepted. *reason* is one of few words, because a metric has a line for each."""

    def __init__(
        self, status: int, reason: str, sentence: str, *, headers: Mapping[str, str] = _NOTHING
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.headers = headers


def later(reason: str, sentence: str, seconds: int, *, status: int = 503) -> Rejected:
    """Not now: the same call may work after *seconds*."""
    return Rejected(status, reason, sentence, headers={"Retry-After": str(seconds)})
