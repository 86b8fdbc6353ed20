"""The error response of the receiver: a status, a sentence, and a reason for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Rejected(Exception):
    """A call that is not accepted. *reason* is one of few words, because it is a label of a metric.

    The *sentence* is for the caller and may contain a value. *field* is the path of the payload's key in it.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        sentence: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        field: str = "",
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.headers = headers
        self.field = field


def retry_after(reason: str, sentence: str, seconds: int, *, status: int = 503) -> Rejected:
    """A temporary rejection with Retry-After: the same call may work after *seconds*."""
    return Rejected(status, reason, sentence, headers={"Retry-After": str(seconds)})
