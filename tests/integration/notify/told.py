"""An environment whose people are told, and its outbox."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.notify import sender
from handlers.notify.sender import Sent
from handlers.release.ledger import outbox
from handlers.release.ledger.outbox import Entry
from handlers.release.topic import Topic
from tests.integration.phases.looks import FILE

SECRET = "SENTINEL-hook-4711"


@dataclass(frozen=True, kw_only=True)
class Told:
    """The environment `told`."""

    engine: AsyncEngine
    url: str
    path: Path
    monkeypatch: pytest.MonkeyPatch
    environment: Environment | None = None

    def with_addresses(self, *addresses: tuple[str, str], **settings: Any) -> Told:
        """The same with these addresses; `severities` may follow a name after a colon."""
        lines = ["[notify]"]
        lines += [f"{key} = {value!r}" for key, value in settings.items()]
        for name, address in addresses:
            name, _, severities = name.partition(":")
            variable = f"ADDRESS_{name.upper().replace('-', '_')}"
            self.monkeypatch.setenv(variable, address)
            lines += ["[[notify.addresses]]", f'name = "{name}"', f'url = "env:{variable}"']
            lines += [f"severities = {severities.split(',')}"] if severities else []
        url = make_url(self.url).render_as_string(hide_password=False)
        text = FILE.format(name="told", url=url, more="") + "\n".join(lines) + "\n"
        self.path.write_text(text, encoding="utf-8")
        return replace(self, environment=load_environment(str(self.path)))

    async def say(self, sentence: str, topic: Topic = Topic.HELD, **values: Any) -> int | None:
        """Write a message into the outbox."""
        return await outbox.write(self.engine, "told", topic, sentence, **values)

    async def send(self) -> Sent:
        """A sender comes by."""
        assert self.environment is not None
        return await sender.send_due(self.engine, self.environment)

    async def entries(self) -> list[Entry]:
        """The whole outbox."""
        return await outbox.entries(self.engine, "told", limit=100)

    async def states(self) -> list[str]:
        """What came of each delivery."""
        return [entry.state for entry in await self.entries()]

    async def later(self, seconds: float) -> None:
        """Let time pass for everything in the outbox."""
        async with self.engine.begin() as tx:
            for table, columns in {
                "message": ("written_at",),
                "delivery": ("due_at", "first_try_at", "claimed_until"),
            }.items():
                moved = ", ".join(f"{name} = {name} - interval '{seconds} s'" for name in columns)
                await tx.exec_driver_sql(f"UPDATE runbook.{table} SET {moved}")
