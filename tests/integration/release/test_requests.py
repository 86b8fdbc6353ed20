"""Requests to a running release: seen by its controller, answered once, and kept with name and reason."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release.decisions import Verb
from handlers.release.ledger import requests
from tests.integration.release.steps import deploying


async def test_a_request_is_seen_then_answered_and_stays_in_the_ledger(engine: AsyncEngine) -> None:
    """Who asked for what and why, when the controller saw it, and what came of it."""
    release = await deploying(engine)
    asked = await requests.ask(engine, release, Verb.HOLD, by="ops-a", reason="lunch")
    assert (await requests.get(engine, asked)).seen_at is None
    [seen] = await requests.see(engine, release)
    assert (seen.id, seen.sentence) == (asked, "hold requested by ops-a: lunch")
    await requests.answer(engine, release, "the release is held")
    assert await requests.see(engine, release) == []
    kept = await requests.get(engine, asked)
    assert kept.seen_at == seen.seen_at
    assert (kept.answered_at is not None, kept.answer) == (True, "the release is held")


async def test_one_answer_ends_every_open_request(engine: AsyncEngine) -> None:
    """Two people asked: what is done answers both, and no request waits for a later release step."""
    release = await deploying(engine)
    other = await deploying(engine, "production")
    for verb in (Verb.HOLD, Verb.ABORT):
        await requests.ask(engine, release, verb, by="ops-a", reason="a test")
    await requests.ask(engine, other, Verb.HOLD, by="ops-a", reason="a test")
    assert [request.verb for request in await requests.see(engine, release)] == [Verb.HOLD, Verb.ABORT]
    await requests.answer(engine, release, "done")
    assert await requests.see(engine, release) == []
    assert len(await requests.see(engine, other)) == 1, "requests of another release stay open"
