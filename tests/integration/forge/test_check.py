"""What `runbook check` says of the forge: a release of what is on the branch already needs none, so it only warns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.forge import calls
from handlers.phases import merged_check
from handlers.release.planned import Check
from tests.integration.forge.hubs import Hub
from tests.integration.forge.stand_in import REPOSITORY, Fault


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A forge of its own; a pause between two tries is short."""
    monkeypatch.setattr(calls, "_PAUSE_FIRST_SECONDS", 0.01)
    with Hub.make(tmp_path) as made:
        yield made


async def asked(hub: Hub) -> Check:
    """The check of an environment with a forge."""
    check = await merged_check.can_be_asked(hub.environment())
    assert check is not None
    assert check.good
    return check


async def test_a_forge_that_answers_is_good(hub: Hub) -> None:
    """The sentence names the repository."""
    check = await asked(hub)
    assert not check.warns
    assert check.sentence.endswith(f"answers, and knows {REPOSITORY}")


@pytest.mark.parametrize(
    ("status", "words", "temporary"),
    [
        (401, "wrong, expired or revoked", False),
        (404, "Check forge.repository", False),
        (503, "answered 503", True),
    ],
)
async def test_a_forge_that_cannot_be_asked_is_a_warning(
    hub: Hub, status: int, words: str, temporary: bool
) -> None:
    """With what to do, and whether it may be better later."""
    hub.forge.faults.append(Fault(method="GET", path="/repos/[^/]+/[^/]+$", status=status, times=calls.TRIES))
    check = await asked(hub)
    assert (check.warns, check.temporary) == (True, temporary)
    assert words in check.sentence


async def test_a_repository_that_is_archived_is_a_warning(hub: Hub) -> None:
    """It answers, but nothing can be merged."""
    hub.forge.archived = True
    check = await asked(hub)
    assert check.warns
    assert "is archived on" in check.sentence
