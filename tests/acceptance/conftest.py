"""Whole stories on the command line: each is run once, kept, looked at by its tests, and ended."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.story_runs import Stories, Told


@pytest.fixture(scope="session")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """All stories that the chosen tests name, begun at once and told a few at a time."""
    wanted = []
    for item in request.session.items:
        for mark in item.iter_markers("story"):
            if mark.args[0] not in wanted:
                wanted.append(mark.args[0])
    with tempfile.TemporaryDirectory(prefix="tds-a-") as home:
        told = Stories(Path(home).resolve(), wanted)
        try:
            yield told
        finally:
            told.end()


@pytest.fixture
def told(request: pytest.FixtureRequest, stories: Stories) -> Told:
    """The story that the test is marked with."""
    mark = request.node.get_closest_marker("story")
    assert mark is not None
    return stories[mark.args[0]]
