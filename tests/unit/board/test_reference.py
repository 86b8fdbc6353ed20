"""docs/board.md has every field and every metric as the program has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from board import reference

PAGE = Path(__file__).parents[3] / "docs" / "board.md"


@pytest.mark.parametrize("part", ["metrics_table", "alert_names", "answers_reference"])
def test_the_page_has_what_the_program_has(part: str) -> None:
    """Copy the output of `python -c "from board import reference; print(reference.metrics_table())"` into the page."""
    assert getattr(reference, part)() in PAGE.read_text(encoding="utf-8")


def test_every_field_that_needs_a_sentence_has_one() -> None:
    """The models are described, and the description comes from them."""
    text = reference.answers_reference()
    assert "**Queue**: `/queue`:" in text
    assert "| `since_is_of` | one of ['ledger', 'board'] | `ledger`: since then." in text
