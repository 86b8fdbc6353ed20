"""The lock: one holder, a growing token, a take-over that fences the previous holder off."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import Locked, LockLost, Refused
from handlers.release import lock
from handlers.release.controller import Controller, this_controller
from handlers.release.ledger.releases import get
from tests.integration.release.steps import begun, deploying


async def test_taking_the_lock_gives_the_release_a_token(engine: AsyncEngine) -> None:
    """One transaction stores the token in the lock and in the release."""
    release = await begun(engine)
    token = await lock.take(engine, "staging", release.id, "ops-a:1")
    held = await lock.holder(engine, "staging")
    assert held is not None
    assert (held.name, held.release_id, held.token, held.alive) == ("ops-a:1", release.id, token, True)
    assert (await get(engine, release.id)).token == token


async def test_a_living_holder_keeps_the_lock_and_the_refusal_says_who_and_how(engine: AsyncEngine) -> None:
    """The second one reads holder, age, token and what to do."""
    one, two = await begun(engine), await begun(engine)
    await lock.take(engine, "staging", one.id, "ops-a:1")
    with pytest.raises(
        Refused,
        match=rf"locked by ops-a:1 for release {one.id}.*s ago, token [0-9]+.*runbook resume --take-over REASON",
    ):
        await lock.take(engine, "staging", two.id, "ops-b:1")
    assert (await get(engine, two.id)).token is None


async def test_one_of_many_at_once_gets_the_lock(engine: AsyncEngine) -> None:
    """Eight take at the same moment: one token, seven refusals."""
    releases = [await begun(engine) for _ in range(8)]
    results = await asyncio.gather(
        *(lock.take(engine, "staging", release.id, f"ops:{n}") for n, release in enumerate(releases)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Refused) for result in results) == 7


async def test_a_dead_holder_is_succeeded_with_a_higher_token(engine: AsyncEngine) -> None:
    """After its expiry another controller takes it without force, and the dead one cannot renew it."""
    one, two = await begun(engine), await begun(engine)
    old = await lock.take(engine, "staging", one.id, "ops-a:1", ttl=0.001)
    async with engine.connect() as tx:
        await tx.execute(text("SELECT pg_sleep(0.01)"))
    holder = await lock.holder(engine, "staging")
    assert holder is not None
    assert not holder.alive
    assert await lock.take(engine, "staging", two.id, "ops-b:1") > old
    with pytest.raises(LockLost, match="ops-b:1 has taken the lock"):
        await lock.renew(engine, "staging", old)


def ended_controller() -> Controller:
    """A process of this machine that has ended."""
    us = this_controller()
    assert us is not None
    return replace(us, name="ops-a:1", started=us.started - 1)


async def test_the_lock_of_a_process_that_ended_on_this_machine_is_free_at_once(engine: AsyncEngine) -> None:
    """Nobody waits for its expiry, and nobody needs force. What it may still try is fenced off."""
    release = await begun(engine)
    old = await lock.take(engine, "staging", release.id, "ops-a:1", controller=ended_controller())
    holder = await lock.holder(engine, "staging")
    assert holder is not None
    assert (holder.alive, holder.has_ended) == (False, True)
    other = await begun(engine)
    assert await lock.take(engine, "staging", other.id, "ops-b:1", controller=this_controller()) > old
    with pytest.raises(LockLost):
        await lock.renew(engine, "staging", old)
    holder = await lock.holder(engine, "staging")
    assert holder is not None
    assert not holder.is_ours, "the lock says ops-b:1, which is not the name of this process"


async def test_a_process_of_another_machine_keeps_its_lock_until_it_expires(engine: AsyncEngine) -> None:
    """The same name, number and start: on another kernel, or in another container, that is another process."""
    release = await begun(engine)
    for elsewhere in ({"boot": "another"}, {"namespace": "pid:[1]"}):
        controller = replace(ended_controller(), **elsewhere)
        await lock.take_over(engine, "staging", release.id, "ops-a:1", reason="a test", controller=controller)
        with pytest.raises(Locked) as refused:
            await lock.take(engine, "staging", release.id, "ops-a:1", controller=this_controller())
        assert refused.value.release_id == release.id


async def test_a_lock_that_an_older_version_took_is_never_taken_for_a_dead_one(engine: AsyncEngine) -> None:
    """It leaves the process of its predecessor in the row: that one has ended, and the holder has not."""
    release = await begun(engine)
    await lock.take(engine, "staging", release.id, "ops-a:1", controller=ended_controller())
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.lock SET holder = 'ops-b:1', token = token + 1"))
    holder = await lock.holder(engine, "staging")
    assert holder is not None
    assert holder.alive
    with pytest.raises(Locked):
        await lock.take(engine, "staging", release.id, "ops-c:1", controller=this_controller())


async def test_of_many_that_find_a_dead_holder_one_gets_the_lock(engine: AsyncEngine) -> None:
    """Eight see the same dead process at the same moment: one token, seven refusals."""
    release = await begun(engine)
    await lock.take(engine, "staging", release.id, "ops-a:1", controller=ended_controller())
    results = await asyncio.gather(
        *(lock.take(engine, "staging", release.id, f"ops:{n}") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Locked) for result in results) == 7


async def test_renewing_keeps_the_lock(engine: AsyncEngine) -> None:
    """A sign of life moves the end."""
    release = await begun(engine)
    token = await lock.take(engine, "staging", release.id, "ops-a:1", ttl=5)
    before = await lock.holder(engine, "staging")
    await lock.renew(engine, "staging", token, ttl=500)
    after = await lock.holder(engine, "staging")
    assert before is not None
    assert after is not None
    assert after.expires_at > before.expires_at
    assert after.heartbeat_at > before.heartbeat_at
    assert after.taken_at == before.taken_at


async def test_a_takeover_needs_a_reason_and_keeps_it(engine: AsyncEngine) -> None:
    """Who took it from whom and why stays in the ledger; the former holder is fenced off."""
    release = await deploying(engine)
    assert release.token is not None
    with pytest.raises(Refused, match="needs a reason"):
        await lock.take_over(engine, "staging", release.id, "ops-b:1", reason="  ")
    token = await lock.take_over(engine, "staging", release.id, "ops-b:1", reason="laptop died")
    assert token > release.token
    async with engine.connect() as tx:
        row = (await tx.execute(text("SELECT former_holder, holder, reason FROM runbook.takeover"))).one()
    assert tuple(row) == ("ops-a:1", "ops-b:1", "laptop died")
    with pytest.raises(LockLost):
        await lock.renew(engine, "staging", release.token)
    assert await lock.free(engine, "staging", release.token) is False
    assert (await lock.holder(engine, "staging")) is not None


async def test_tokens_never_count_down(engine: AsyncEngine) -> None:
    """Taking, giving back and taking again only ever raises the token."""
    release = await begun(engine)
    tokens = []
    for _ in range(3):
        tokens.append(await lock.take(engine, "staging", release.id, "ops-a:1"))
        assert await lock.free(engine, "staging", tokens[-1])
    assert tokens == sorted(set(tokens))


async def test_a_ledger_that_was_made_anew_counts_on(engine: AsyncEngine) -> None:
    """Hosts remember the highest token: a ledger that forgot its own must not be taken for an older controller."""
    release = await begun(engine)
    before = await lock.take(engine, "staging", release.id, "ops-a:1")
    async with engine.begin() as tx:
        await tx.execute(text("DELETE FROM runbook.lock"))
    assert await lock.take(engine, "staging", release.id, "ops-a:1") >= before
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.lock SET token = 3"))
    assert await lock.take(engine, "staging", release.id, "ops-a:1") >= before


async def test_the_same_process_may_take_again(engine: AsyncEngine) -> None:
    """A retry of the same holder for the same release is not refused by itself."""
    release = await begun(engine)
    first = await lock.take(engine, "staging", release.id, "ops-a:1")
    assert await lock.take(engine, "staging", release.id, "ops-a:1") > first


async def test_a_lock_is_only_given_to_a_release_of_its_environment(engine: AsyncEngine) -> None:
    """Neither an unknown release nor one of another place can lock this one."""
    other = await begun(engine, "production")
    for release_id in ("2020-01-01.1", other.id):
        with pytest.raises(Refused, match=f"no release {release_id} in staging"):
            await lock.take(engine, "staging", release_id, "ops-a:1")
    assert await lock.holder(engine, "staging") is None


async def test_a_takeover_waits_for_a_write_that_has_begun(engine: AsyncEngine) -> None:
    """Fenced writes and take-overs do not overlap: no token moves under a transaction that checked it."""
    release = await deploying(engine)
    async with engine.connect() as tx, tx.begin():
        await lock.fence(tx, "staging", release.token)
        taking = asyncio.create_task(lock.take_over(engine, "staging", release.id, "ops-b:1", reason="test"))
        done, _ = await asyncio.wait({taking}, timeout=0.3)
        assert not done
    assert await asyncio.wait_for(taking, 10) > (release.token or 0)
