"""Telling without the ledger, what nobody looks after, and the check of the addresses."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.core import Core, open_core
from handlers.host.way_back import HostReturn
from handlers.notify.address_checks import address_checks
from handlers.notify.tell import send_without_ledger, tell
from handlers.phases import from_hosts
from handlers.phases.from_hosts import Target
from handlers.phases.neglected import tell_neglected
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Verdict
from handlers.release.topic import Topic
from tests.conftest import engine_for
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.notify.listeners import Listener, http_listener
from tests.integration.notify.told import SECRET, Told
from tests.integration.release.steps import deploying, in_phase


def at(told: Told, listener: Listener) -> Told:
    """The same, and the listener is told."""
    return told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}/{SECRET}"))


async def core_of(told: Told, engine: AsyncEngine | None = None) -> Core:
    """The core of a step; on another database where one is given."""
    assert told.environment is not None
    async with open_core(told.environment) as core:
        return replace(core, database=engine or told.engine)


async def test_a_page_is_in_the_log_and_in_the_outbox(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """An error for a trouble; a recovery is a warning."""
    run = await deploying(told.engine, "told")
    core = await core_of(told.with_addresses())
    await tell(core, run, Topic.NOT_BACK, "web-1 is not back", subject="web-1")
    await tell(core, run, Topic.BACK, "web-1 is back", subject="web-1")
    logged = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert logged == [
        (logging.ERROR, f"release {run.id}: web-1 is not back"),
        (logging.WARNING, f"release {run.id}: web-1 is back"),
    ]
    assert [entry.topic for entry in await told.entries()][1:] == ["host.not-back", "host.back"]


async def test_while_the_ledger_is_away_a_page_is_sent_without_it(told: Told) -> None:
    """A rollback goes on without the ledger, and people hear of it. What can wait is not sent."""
    away = engine_for(f"postgresql://nobody@127.0.0.1:{CLOSED_PORT}/none")
    async with http_listener() as listener:
        told = at(told, listener)
        run = await deploying(told.engine, "told")
        core = await core_of(told, away)
        await tell(core, run, Topic.NOT_BACK, "web-1 is not back", subject="web-1")
        await tell(core, run, Topic.NEW_ERROR, "an error")
    await away.dispose()
    assert [call["message"].splitlines()[0] for call in listener.got] == ["Host not back: web-1 is not back"]


@pytest.mark.parametrize(("back", "headline"), [(True, "Rolled back"), (False, "Rollback FAILED")])
async def test_a_rollback_from_the_hosts_is_told(told: Told, back: bool, headline: str) -> None:
    """With no database at all: how many hosts are back, and which release."""
    target = Target(release="2026-01-02.1", back_to="a" * 40, leaving="b" * 40, token=7, hosts=())
    hosts = [HostReturn(host="web-1", back=True), HostReturn(host="web-2", back=back)]
    async with http_listener() as listener:
        told = at(told, listener)
        assert told.environment is not None
        message = from_hosts.message_about("told", target, hosts, "the database is gone")
        await send_without_ledger(told.environment, message)
    [call] = listener.got
    lines = call["message"].splitlines()
    assert lines[0] == f"{headline}: {1 + back} of 2 hosts are back, without the ledger: the database is gone"
    assert lines[2] == "Release 2026-01-02.1, told, bbbbbbb to aaaaaaa"


async def test_a_release_that_nobody_carries_is_told_once(told: Told) -> None:
    """After three minutes, for each timer comes each minute. Its next controller ends that."""
    run = await deploying(told.engine, "told")
    core = await core_of(told.with_addresses())
    await tell_neglected(core)
    async with told.engine.begin() as tx:
        await tx.exec_driver_sql(
            "UPDATE runbook.lock SET heartbeat_at = heartbeat_at - interval '400 s', "
            "expires_at = expires_at - interval '400 s'"
        )
    for _ in range(2):
        await tell_neglected(core)
    await told.say("carried", Topic.CARRIED, release_id=run.id)
    assert [entry.topic for entry in await told.entries()] == [
        "release.started",
        "release.uncarried",
        "release.carried",
    ]


async def test_checks_of_a_guard_that_nobody_takes_are_told_once(told: Told) -> None:
    """The other timer says so."""
    run = await in_phase(told.engine, Phase.WATCHING, "told")
    run = await releases.enter(told.engine, run, Phase.SUCCEEDED, verdict=Verdict.PASS)
    core = await core_of(told.with_addresses())
    await tell_neglected(core)
    async with told.engine.begin() as tx:
        await tx.exec_driver_sql("UPDATE runbook.guard_check SET due_at = due_at - interval '500 s'")
    for _ in range(2):
        await tell_neglected(core)
    [entry] = [entry for entry in await told.entries() if entry.topic == "guard.overdue"]
    assert entry.sentence.startswith("nobody takes the checks: 1 overdue since ")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"foo://{SECRET}@host", "Apprise knows no service of this kind"),
        (SECRET, "Apprise knows no service of this kind"),
        ("", "Apprise knows no service of this kind"),
        (f"slack://{SECRET}", "Apprise knows no service of this kind"),
        (None, "the variable ADDRESS_CHAT is not set"),
    ],
)
async def test_a_wrong_address_is_named_at_the_check(told: Told, address: str | None, why: str) -> None:
    """One warning with the name and the reference, never the address. It refuses no release."""
    told = told.with_addresses(("chat", address or ""), ("good", "json://127.0.0.1"))
    if address is None:
        told.monkeypatch.delenv("ADDRESS_CHAT")
    assert told.environment is not None
    [check] = await address_checks(told.environment)
    assert (check.good, check.warns) == (True, True)
    assert check.sentence.startswith("address chat (env:ADDRESS_CHAT) cannot be used: ")
    assert why in check.sentence
    assert SECRET not in check.sentence


async def test_good_addresses_are_one_line_and_none_are_no_check(told: Told) -> None:
    """Nothing is sent by a check."""
    good = told.with_addresses(("chat", "json://127.0.0.1"), ("mail", "mailto://a:b@example.com"))
    assert good.environment is not None
    [check] = await address_checks(good.environment)
    assert (check.warns, check.sentence.partition(":")[0]) == (False, "chat, mail")
    none = told.with_addresses()
    assert none.environment is not None
    assert await address_checks(none.environment) == []
