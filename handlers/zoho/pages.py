"""The pages of a list: which questions are asked, and when the last one has come. Rows are partial records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from handlers.entities import registry
from handlers.entities.base import STAMPS
from handlers.entities.document import Refusal
from handlers.entities.parse import moment
from handlers.entities.spec import Data
from handlers.errors import Refused, TryAgain
from handlers.zoho.api import Api
from handlers.zoho.listings import Listing

PER_PAGE = 200
"""The most that the source gives."""
PAGES_MAX = 100_000
_ODD_MAX = 3
"""So often is an empty page asked for that says that there are more."""


@dataclass(frozen=True, kw_only=True)
class ListRow:
    """One row with its id."""

    key: str
    data: Data
    stamp: datetime | None
    """When it changed, if the list says it."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page."""

    rows: Sequence[ListRow]
    faults: Sequence[str]
    """Rows that cannot be told: without a valid id. Nobody can ask for such a record."""
    is_last: bool
    is_sorted: bool
    """The list does not say that it has another order than it was asked for."""
    at: datetime | None
    """The source's time of the answer."""

    def is_older_than(self, since: datetime) -> bool:
        """Whether the page ends before *since*, newest first. A page without a change time says nothing."""
        stamps = [row.stamp for row in self.rows]
        known = [stamp for stamp in stamps if stamp is not None]
        if not known or len(known) < len(stamps) or not self.is_sorted:
            return False
        # A list that ignores the order has newer rows after older ones: then every page is read.
        return known == sorted(known, reverse=True) and known[-1] < since


async def page(api: Api, listing: Listing, number: int, since: datetime | None) -> Page:
    """Page *number* of a list, with what changed since *since* first, or only that where the list can."""
    for _ in range(_ODD_MAX):
        answer = await api.get(listing.path, _question(listing, number, since))
        if answer is None:
            raise Refused(f"Zoho {listing.path} does not exist: check zoho.api_url and the data centre")
        rows = answer.body.get(listing.list_key)
        if not isinstance(rows, list):
            # A list without a row may come as a blank, as any value of the source.
            rows = [] if rows in (None, "", {}) else [rows]
        if rows or not _has_more(answer.body, 0):
            break
    else:
        # To go on would be to leave out whatever belongs here.
        raise TryAgain(f"Zoho {listing.path}: page {number} is empty, but there is said to be another one")
    good: list[ListRow] = []
    faults: list[str] = []
    for position, row in enumerate(rows):
        try:
            good.append(_row(listing, row))
        except Refusal as refusal:
            faults.append(f"page {number}, row {position + 1}: {refusal}")
    return Page(
        rows=good,
        faults=faults,
        is_last=not rows or not _has_more(answer.body, len(rows)),
        is_sorted=_context(answer.body).get("sort_column") in (None, "", listing.sort_column),
        at=answer.at,
    )


def source_time(at: datetime) -> str:
    """A time as the source's filters take it: with a numeric offset, as a `Z` is refused."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def stamp_of(record: Data) -> datetime | None:
    """The change time of a record; None where it has none, or one that is no time."""
    for key in STAMPS:
        try:
            stamp = moment(record.get(key))
        except ValueError:
            continue
        if stamp is not None:
            return stamp
    return None


def _question(listing: Listing, number: int, since: datetime | None) -> Mapping[str, str]:
    question = {**listing.query, "page": str(number), "per_page": str(PER_PAGE)}
    if listing.sort_column:
        question |= {"sort_column": listing.sort_column, "sort_order": "D"}
    if since is not None and listing.has_filter:
        question["last_modified_time"] = source_time(since)
    return question


def _row(listing: Listing, row: Any) -> ListRow:
    if not isinstance(row, dict):
        raise Refusal(listing.list_key, "is not an object")
    return ListRow(key=registry.source_key(listing.entity, row), data=row, stamp=stamp_of(row))


def _has_more(body: Mapping[str, Any], rows: int) -> bool:
    context = _context(body)
    if "has_more_page" in context:
        return context["has_more_page"] in (True, "true")
    # Small lists say nothing: a full page may have a next one.
    return rows >= PER_PAGE


def _context(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an answer says of its list; some examples of the source have it in a list of one."""
    context = body.get("page_context")
    if isinstance(context, list) and context:
        context = context[0]
    return context if isinstance(context, dict) else {}
