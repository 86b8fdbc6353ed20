"""Fixtures for whole stories on the command line: each runs once, and its target is kept for its tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.story_runs import Stories, StoryRun


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """The stories of the module's selected tests, started together and run a few at a time.

    Not those of other modules: these run in another process, beside this one.
    """
    wanted: list[str] = []
    for item in request.session.items:
        if item.path != request.path:
            continue
        for mark in item.iter_markers("story"):
            if mark.args[0] not in wanted:
                wanted.append(mark.args[0])
    with tempfile.TemporaryDirectory(prefix="tds-a-") as home:
        stories = Stories(Path(home).resolve(), wanted)
        try:
            yield stories
        finally:
            stories.end()


@pytest.fixture
def run(request: pytest.FixtureRequest, stories: Stories) -> StoryRun:
    """The finished run of the story that the test is marked with."""
    mark = request.node.get_closest_marker("story")
    assert mark is not None
    return stories[mark.args[0]]
