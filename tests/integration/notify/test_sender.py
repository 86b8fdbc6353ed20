"""The outbox is sent: once, to the right addresses, again where one does not take it, and never with a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.notify import sender
from handlers.release.ledger import outbox, releases
from handlers.release.ledger.outbox import Entry
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.topic import Topic
from tests.integration.notify.listeners import http_listener
from tests.integration.phases.looks import FILE
from tests.integration.release.steps import deploying

SECRET = "sentinel-hook-4711"


def environment_of(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, str], **settings: Any
) -> Environment:
    """An environment `told` with these addresses; `severities` may follow a name after a colon."""
    lines = ["[notify]"]
    lines += [f"{key} = {value!r}" for key, value in settings.items()]
    for name, address in addresses:
        name, _, severities = name.partition(":")
        variable = f"ADDRESS_{name.upper().replace('-', '_')}"
        monkeypatch.setenv(variable, address)
        lines += ["[[notify.addresses]]", f'name = "{name}"', f'url = "env:{variable}"']
        lines += [f"severities = {severities.split(',')}"] if severities else []
    path = folder / "told.toml"
    address = make_url(url).render_as_string(hide_password=False)
    path.write_text(
        FILE.format(name="told", url=address, more="") + "\n".join(lines) + "\n", encoding="utf-8"
    )
    return load_environment(str(path))


async def said(engine: AsyncEngine, sentence: str, topic: Topic = Topic.HELD, **values: Any) -> int:
    """A message in the outbox."""
    id_ = await outbox.write(engine, "told", topic, sentence, **values)
    assert id_ is not None
    return id_


async def entries(engine: AsyncEngine) -> list[Entry]:
    """The whole outbox."""
    return await outbox.entries(engine, "told", limit=100)


async def make_due(engine: AsyncEngine) -> None:
    """Let the pauses before the next tries pass."""
    async with engine.begin() as tx:
        await tx.exec_driver_sql(
            "UPDATE runbook.delivery SET due_at = clock_timestamp() WHERE ended_at IS NULL"
        )


async def test_a_change_of_the_phase_reaches_an_http_server(
    tmp_path: Path, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that is held is told of: what, what to type next, which release; and only once."""
    async with http_listener() as listener:
        environment = environment_of(
            tmp_path, database_url, monkeypatch, ("chat", f"json://127.0.0.1:{listener.port}/{SECRET}")
        )
        run = await deploying(engine, "told")
        await releases.hold(engine, run, "93.1 % of 58 completed", note=PhaseNote(held_by=HeldBy.GATE))
        sent = await sender.send_due(engine, environment)
        again = await sender.send_due(engine, environment)
    assert (sent.taken, again.taken) == (2, 0), sent
    begun, held = listener.got
    assert begun["title"] == held["title"] == f"[told] release {run.id}"
    assert begun["message"].startswith("Release started: it begins, asked for by ops-a: aaaaaaa to bbbbbbb")
    assert held["message"].splitlines() == [
        "Held: 93.1 % of 58 completed",
        "Next: runbook status -e told, then runbook resume or runbook rollback",
        f"Release {run.id}, told, aaaaaaa to bbbbbbb",
    ]
    assert [each.state for each in await entries(engine)] == ["sent", "sent"]
