"""The pull request that made a revision: a fact of its release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.release.phase import short
from handlers.release.stored import known_fields


@dataclass(frozen=True, kw_only=True)
class MergedPull:
    """A merged pull request."""

    number: int
    """Its number on the forge."""
    url: str
    """Its page."""
    head: str
    """The commit that was merged, full hash."""
    commit: str
    """The commit that the merge has made on the branch, full hash."""
    same_files: bool
    """Whether both have the same files: then what was proven with the one is proven with the other."""
    approved_by: tuple[str, ...] = ()
    """Whoever approved exactly the commit that was merged."""
    merged_by: str = ""
    """Who merged it; empty when the forge does not say it."""
    plan: str = ""
    """The hash in its description; empty where that was not written by `runbook pr open`."""

    @property
    def sentence(self) -> str:
        """For people, in one line."""
        by = f" by {self.merged_by}" if self.merged_by else ""
        approved = (
            f", approved by {', '.join(self.approved_by)}" if self.approved_by else ", approved by nobody"
        )
        return f"pull request {self.number} merged {short(self.head)} as {short(self.commit)}{by}{approved}"

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> MergedPull:
        """From the ledger."""
        values = known_fields(cls, stored)
        return cls(**{**values, "approved_by": tuple(values.get("approved_by") or ())})
