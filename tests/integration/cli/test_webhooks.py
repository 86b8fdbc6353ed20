"""`runbook await-webhook` as a process, with a real receiver and a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.queue.event import EntityType
from tests.integration.cli.test_explain import runbook
from tests.integration.cli.test_look import environment
from tests.integration.phases.test_sent_webhook import core_of, working
from tests.integration.queue.events import event
from tests.integration.receiver.calls import ITEM, SECRET, body, receiver, signed

LIMIT_SECONDS = 90


async def awaited(place: str, call: Any, *words: str, seconds: str = "60s") -> tuple[int, dict[str, Any]]:
    """Exit code and result of a wait, during which *call* is made again and again."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "flows.cli",
            "await-webhook",
            "-e",
            place,
            "--json",
            "--timeout",
            seconds,
            *words,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    ended = asyncio.create_task(process.communicate())
    number = 0
    async with asyncio.timeout(LIMIT_SECONDS):
        while not ended.done():
            number += 1
            await call(number)
            await asyncio.wait({ended}, timeout=0.3)
    out, errors = await ended
    assert process.returncode is not None, errors
    return process.returncode, json.loads(out)


async def test_a_webhook_that_comes_is_followed_to_its_row(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """When it arrived, was taken and completed, with the local id; an invoice or an older event is not taken for it."""
    place = environment(tmp_path, database_url)
    await event(engine, "9999", age=5)
    async with receiver(engine, secret=SECRET) as client, working(engine):

        async def call(number: int) -> None:
            await event(engine, f"i{number}", entity=EntityType.USER)
            content = body(ITEM | {"rate": number})
            await client.post("/webhooks/items", content=content, headers=signed(content))

        code, told = await awaited(place, call, "--entity", "product", "--key", ITEM["item_id"])
    assert code == 0, told
    assert [stage["name"] for stage in told["stages"]] == ["arrived", "taken", "completed"]
    assert told["event"]["key"] == ITEM["item_id"]
    assert told["event"]["verified"] is True
    assert "products has row" in told["sentence"]


async def test_what_is_not_applied_in_time_is_said(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Without a worker it arrives and waits: exit code 4."""
    place = environment(tmp_path, database_url)
    async with receiver(engine) as client:

        async def call(number: int) -> None:
            await client.post("/webhooks/items", content=body(ITEM | {"rate": number}))

        code, told = await awaited(place, call, "--entity", "Product", seconds="6s")
    assert (code, told["good"]) == (4, False)
    assert "it is pending at the end of 6s" in told["sentence"]


async def test_when_none_comes_the_exit_code_is_4(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """An event that a person or a sync put into the queue is no webhook."""
    place = environment(tmp_path, database_url)

    async def call(number: int) -> None:
        await event(engine, f"by hand {number}")

    code, told = await awaited(place, call, "--entity", "Product", seconds="2s")
    assert (code, told["event"]) == (4, None)
    assert "no webhook of a Product came within 2s" in told["sentence"]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("await-webhook", "--entity", "produkt", "-e", "{e}"), 5, "did you mean Product?"),
        (
            ("await-webhook", "--entity", "Product", "--timeout", "soon", "-e", "{e}"),
            5,
            "--timeout 'soon' is no span",
        ),
        (("await-webhook", "-e", "{e}"), 5, "--entity"),
        (("await-webhook", "--entity", "Product", "-e", "{away}"), 1, "does not answer"),
        (("send-test-webhook", "-e", "{e}"), 5, "has no [receiver] in its environment file"),
        (("send-test-webhook", "--timeout", "0s", "-e", "{e}"), 5, "--timeout '0s' must be between"),
        (("send-test-webhook", "-e", "{away}"), 5, "has no [receiver]"),
    ],
)
async def test_wrong_input_is_one_sentence(
    tmp_path: Path, database_url: str, words: tuple[str, ...], code: int, what: str
) -> None:
    """An unknown type, no span, no receiver, a database that is away."""
    (tmp_path / "away").mkdir()
    places = {
        "e": environment(tmp_path, database_url),
        "away": environment(tmp_path / "away", "postgresql://nobody@127.0.0.1:9/nothing"),
    }
    found, _, errors = await runbook(*(word.format(**places) for word in words))
    assert (found, what in errors, len(errors.strip().splitlines())) == (code, True, 1), errors


async def test_a_test_webhook_that_does_not_get_through_ends_with_4(
    tmp_path: Path, database_url: str
) -> None:
    """As text, in eighty columns: nobody listens at the address."""
    async with core_of(tmp_path, database_url, "http://127.0.0.1:1/webhooks/items"):
        code, out, errors = await runbook("send-test-webhook", "-e", str(tmp_path / "staging.toml"))
    assert (code, errors) == (4, "")
    assert "the receiver at http://127.0.0.1:1/webhooks/items does not answer" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
