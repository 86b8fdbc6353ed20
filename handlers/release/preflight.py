"""Which error the failed checks of a plan are. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from handlers.errors import Refused, TryAgain
from handlers.release.planned import Check


def failure_of(checks: Iterable[Check]) -> Refused | TryAgain:
    """The error of the failed checks: TryAgain when all are temporary. So each command ends with its exit code."""
    failed = [check for check in checks if not check.good]
    sentence = "; ".join(check.sentence for check in failed)
    return TryAgain(sentence) if all(check.temporary for check in failed) else Refused(sentence)
