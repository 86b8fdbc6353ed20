"""The fixture of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.notify.told import Told


@pytest.fixture
def told(tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Told:
    """An environment with an empty outbox."""
    return Told(engine=engine, url=database_url, path=tmp_path / "told.toml", monkeypatch=monkeypatch)
