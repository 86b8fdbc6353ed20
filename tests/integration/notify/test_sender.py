"""The outbox is sent: once, to the right addresses, again where one does not take it, and never with a secret."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from handlers.environment.load import env_option
from handlers.notify import sender
from handlers.release.ledger import outbox, releases
from handlers.release.note import HeldBy, PhaseNote
from handlers.release.topic import Topic
from tests.acceptance.scanning import in_ledger
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.notify.listeners import Listener, http_listener, smtp_listener
from tests.integration.notify.told import SECRET, Told
from tests.integration.release.steps import deploying


def address(listener: Listener) -> str:
    """The address of a web hook, with a secret in it."""
    return f"json://127.0.0.1:{listener.port}/{SECRET}"


async def test_a_change_of_the_phase_reaches_an_http_server(told: Told) -> None:
    """A release that is held is told of: what, what to type next, which release; and only once."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", address(listener)))
        run = await deploying(told.engine, "told")
        await releases.hold(told.engine, run, "93.1 % of 58 completed", note=PhaseNote(held_by=HeldBy.GATE))
        sent, again = await told.send(), await told.send()
    assert (sent.taken, again.taken) == (2, 0), sent
    begun, held = listener.got
    assert begun["title"] == held["title"] == f"[told] release {run.id}"
    assert begun["message"].startswith("Release started: it begins, asked for by ops-a: aaaaaaa to bbbbbbb")
    env = env_option("told")
    assert held["message"].splitlines() == [
        "Held: 93.1 % of 58 completed",
        f"Next: runbook status {env}, then runbook resume {env} or runbook rollback {env}",
        f"Release {run.id}, told, aaaaaaa to bbbbbbb",
    ]
    assert await told.states() == ["sent", "sent"]


async def test_a_mail_continues_the_conversation_of_its_release(told: Told) -> None:
    """All mails of a release have one subject and refer to one id, as mail programs sort them."""
    async with smtp_listener() as listener:
        told = told.with_addresses(
            ("mail", f"mailto://127.0.0.1:{listener.port}/?from=a@example.com&to=b@example.com&mode=insecure")
        )
        run = await deploying(told.engine, "told")
        await releases.hold(told.engine, run, "no data", note=PhaseNote(held_by=HeldBy.GATE))
        sent = await told.send()
    assert sent.taken == 2, sent
    assert {mail["Subject"] for mail in listener.got} == {f"[told] release {run.id}"}
    assert {mail["References"] for mail in listener.got} == {f"<{run.id}.told@tds-runbook>"}
    assert "Held: no data" in str(listener.got[1].get_payload(decode=True), "utf-8").splitlines()


async def test_a_slack_message_continues_the_thread_of_its_release(told: Told) -> None:
    """The first message opens a thread by the ts of its answer; the next ones go into it."""
    from apprise.plugins.slack import NotifySlack

    async with http_listener() as listener:
        listener.reply = b'{"ok": true, "ts": "1732.55", "channel": "C1"}'
        told.monkeypatch.setattr(NotifySlack, "api_url", f"http://127.0.0.1:{listener.port}/api/{{}}")
        told = told.with_addresses(("chat", "slack://xoxb-1234-1234-4ddbc191d40ee098cbaae6f3523ada2d/%23ops"))
        run = await deploying(told.engine, "told")
        await releases.hold(told.engine, run, "no data", note=PhaseNote(held_by=HeldBy.GATE))
        sent = await told.send()
    assert sent.taken == 2, sent
    assert [call.get("thread_ts") for call in listener.got] == [None, "1732.55"]


@pytest.mark.parametrize("status", [500, 429, 403])
async def test_what_an_address_refuses_is_tried_again(told: Told, status: int) -> None:
    """Not at once; then once. What it answered is shown, and not the address."""
    async with http_listener() as listener:
        listener.status = status
        told = told.with_addresses(("chat", address(listener)))
        await told.say("no data")
        refused, at_once = await told.send(), await told.send()
        assert (refused.waiting, at_once.waiting, listener.tried) == (1, 0, 1)
        [entry] = await told.entries()
        assert (entry.state, entry.tries) == ("waiting", 1)
        assert str(status) in entry.answer
        assert SECRET not in entry.answer
        listener.status = 200
        await told.later(sender.PAUSES[0])
        assert (await told.send()).taken == 1
        await told.later(3600)
        assert (await told.send()).taken == 0
    assert len(listener.got) == 1


async def test_a_mail_that_is_refused_is_tried_again(told: Told) -> None:
    """An SMTP server that says 451 has not taken it."""
    async with smtp_listener() as listener:
        listener.status = 451
        told = told.with_addresses(
            ("mail", f"mailto://127.0.0.1:{listener.port}/?from=a@example.com&to=b@example.com&mode=insecure")
        )
        await told.say("no data")
        assert (await told.send()).waiting == 1
        listener.status = 250
        await told.later(sender.PAUSES[0])
        assert (await told.send()).taken == 1
    assert len(listener.got) == 1


async def test_an_address_that_hangs_keeps_no_other_from_its_messages(told: Told) -> None:
    """It has its time, then its messages wait; the other address has all of them."""
    async with http_listener() as hanging, http_listener() as good:
        hanging.hangs = True
        told = told.with_addresses(("slow", address(hanging)), ("chat", address(good)), answer_seconds=0.5)
        for number in range(3):
            await told.say(f"no data {number}", release_id=None, topic=list(Topic)[number])
        sent = await told.send()
    assert (sent.taken, sent.waiting, hanging.tried) == (3, 3, 1), sent
    assert sent.answers["slow"] == "no answer within 0.5 s"


async def test_nobody_listens_and_the_sentence_names_no_secret(told: Told) -> None:
    """A refused connection is an answer like any other."""
    told = told.with_addresses(("chat", f"json://ops:{SECRET}@127.0.0.1:{CLOSED_PORT}/{SECRET}"))
    await told.say("no data")
    sent = await told.send()
    assert sent.waiting == 1
    assert "onnection" in sent.answers["chat"]
    assert SECRET not in sent.sentence


async def test_a_message_is_given_up_after_its_time_and_that_is_shown(told: Told) -> None:
    """Not silently: the outbox says how often it was tried, and why it failed."""
    told = told.with_addresses(("chat", f"json://127.0.0.1:{CLOSED_PORT}/"), keep_trying_seconds=3600)
    await told.say("no data")
    assert (await told.send()).waiting == 1
    await told.later(3601)
    assert (await told.send()).given_up == 1
    await told.later(86_400)
    assert (await told.send()).sentence == "no message is due"
    [entry] = await told.entries()
    assert entry.state == "given up"
    assert entry.answer.startswith("given up after 2 tries: ")


async def test_two_senders_at_once_send_each_message_once(told: Told) -> None:
    """They claim different rows, and each makes sure of its claim before it sends."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", address(listener)))
        for topic in Topic:
            await told.say(f"about {topic}", topic, sent_otherwise="")
        written = len([entry for entry in await told.entries() if not entry.not_sent])
        sent = await asyncio.gather(*(told.send() for _ in range(4)))
    assert sum(each.taken for each in sent) == written > 15
    assert len({call["message"] for call in listener.got}) == len(listener.got) == written


async def test_the_claim_of_a_sender_that_is_gone_ends(told: Told) -> None:
    """Until then nobody sends its message; whoever has lost a claim sends nothing more."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", address(listener)))
        await told.say("no data")
        assert told.environment is not None
        await sender._Sender(told.engine, told.environment, sender.Sent()).address()
        [gone] = await outbox.claim(told.engine, "told", by="gone", seconds=30, limit=5)
        assert (await told.send()).taken == 0
        await told.later(31)
        assert (await told.send()).taken == 1
        assert await outbox.begin_try(told.engine, gone, seconds=30) is None
    assert len(listener.got) == 1


async def test_a_page_goes_at_once_and_the_rest_waits_in_the_quiet_hours(told: Told) -> None:
    """Quiet at any time but one minute of the day: what can wait does, and says until when."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", address(listener)), **await _quiet_now(told))
        await told.say("no data", Topic.HELD)
        await told.say("all good", Topic.SUCCEEDED)
        assert (await told.send()).taken == 1
        assert [call["message"].partition(":")[0] for call in listener.got] == ["Held"]
        assert await told.states() == ["sent", "waiting"]
        await told.later(86_400)
        assert (await told.send()).taken == 1


async def _quiet_now(told: Told) -> dict[str, str]:
    """Quiet hours that began an hour ago and end in an hour, by the database's clock."""
    async with told.engine.begin() as tx:
        row = await tx.exec_driver_sql(
            "SELECT to_char(now() - interval '1 h', 'HH24:MI'), to_char(now() + interval '1 h', 'HH24:MI')"
        )
        begin, end = row.one()
    return {"quiet_from": begin, "quiet_until": end}


async def test_an_address_is_told_only_of_its_severities(told: Told) -> None:
    """What no address wants is shown as sent to nobody."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat:page", address(listener)))
        await told.say("no data", Topic.HELD)
        await told.say("all good", Topic.SUCCEEDED)
        assert (await told.send()).taken == 1
    assert [entry.not_sent for entry in await told.entries()] == ["", "no address wants info"]


async def test_news_from_before_there_was_a_sender_is_not_sent(told: Told) -> None:
    """Whoever adds an address hears nothing of last week."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", address(listener)))
        await told.say("all good", Topic.SUCCEEDED)
        await told.later(outbox.STALE_SECONDS)
        assert (await told.send()).sentence == "no message is due"
    assert await told.states() == ["not sent"]


async def test_an_address_that_is_not_in_the_file_any_more_ends_its_deliveries(told: Told) -> None:
    """They would wait for nobody."""
    told = told.with_addresses(("chat", f"json://127.0.0.1:{CLOSED_PORT}/"))
    await told.say("no data")
    await told.send()
    await told.later(60)
    other = told.with_addresses(("mail", f"json://127.0.0.1:{CLOSED_PORT}/"))
    assert (await other.send()).given_up == 1


async def test_a_variable_that_is_missing_is_named_and_the_message_waits(told: Told) -> None:
    """The file is good all the same: no release waits for an address."""
    told = told.with_addresses(("chat", "json://127.0.0.1"))
    told.monkeypatch.delenv("ADDRESS_CHAT")
    await told.say("no data")
    sent = await told.send()
    assert sent.waiting == 1
    assert "the variable ADDRESS_CHAT is not set" in sent.sentence


async def test_the_address_is_in_no_table_and_in_no_log(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it is taken, refused, or no address at all; and a secret in a sentence is masked."""
    async with http_listener() as good, http_listener() as bad:
        bad.status = 500
        told = told.with_addresses(
            ("good", address(good)),
            ("bad", address(bad)),
            ("none", f"foo://{SECRET}@x"),
            ("half", f"json://?x={SECRET}"),
        )
        with caplog.at_level(logging.DEBUG):
            await told.say(f"cannot connect to json://127.0.0.1:{good.port}/{SECRET}, password={SECRET}")
            sent = await told.send()
    assert (sent.taken, sent.waiting) == (1, 3)
    assert SECRET not in sent.sentence + str(good.got)
    # Apprise's own logger reaches nobody, but pytest listens to it all the same.
    ours = [record for record in caplog.records if record.name.startswith(("handlers", "flows", "tasks"))]
    assert SECRET not in "".join(record.getMessage() for record in ours)
    connection = await asyncpg.connect(told.url)
    try:
        assert await in_ledger(connection) == ["runbook.message.sentence"]
    finally:
        await connection.close()
