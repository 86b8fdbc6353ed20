"""The commands of `runbook notify`, mostly in processes of their own: what they say, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli.app import app
from flows.telling import start_sender, telling
from handlers.release.ledger import outbox
from handlers.release.topic import Topic
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.notify.listeners import http_listener
from tests.integration.notify.told import SECRET, Told

SECONDS = 60.0
"""How long a test waits for another process."""


async def run(told: Told, *words: str, command: str = "notify") -> tuple[int, str, str]:
    """`runbook notify …`, or another command: its exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "flows.cli", command, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(told.path.parent / "state")},
    )
    async with asyncio.timeout(SECONDS):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def until(done: Callable[[], Awaitable[bool]], *, seconds: float = SECONDS) -> None:
    """Wait until *done()* is true."""
    async with asyncio.timeout(seconds):
        while not await done():  # noqa: ASYNC110  What is awaited is in another process.
            await asyncio.sleep(0.05)


async def test_a_test_says_what_each_address_answered_and_shows_no_secret(told: Told) -> None:
    """One line for each severity and address; exit 4 when one did not take it, also in the quiet hours."""
    async with http_listener() as listener:
        told = told.with_addresses(
            ("chat", f"json://127.0.0.1:{listener.port}/{SECRET}"),
            ("mail:page", f"mailto://ops:{SECRET}@127.0.0.1:{CLOSED_PORT}?from=a@example.com&mode=insecure"),
            ("none:page", f"foo://{SECRET}"),
            ("half:page", f"json://?token={SECRET}"),
            quiet_from="00:00",
            quiet_until="23:59",
        )
        code, out, errors = await run(told, "test", "-e", str(told.path))
    assert (code, len(listener.got)) == (4, 3), out + errors
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["page", "chat"],
        ["page", "half"],
        ["page", "mail"],
        ["page", "none"],
        ["warning", "chat"],
        ["info", "chat"],
    ]
    assert out.count("sent") == 3
    assert out.count("Apprise knows no service of this kind") == 2
    assert SECRET not in out + errors


async def test_one_severity_can_be_tested(told: Told) -> None:
    """With --json for scripts."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"))
        code, out, _ = await run(told, "test", "-e", str(told.path), "--severity", "info", "--json")
    [message] = json.loads(out)["messages"]
    assert (code, message["severity"], message["answer"], len(listener.got)) == (0, "info", "taken", 1)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("notify",), "say what to do"),
        (("notify", "--due", "list", "-e", "x"), "--due is a command of its own"),
        (("notify", "test", "-e", "x", "--severity", "loud"), "'loud' is not one of"),
        (("notify", "test", "-e", "none.toml"), "cannot read none.toml"),
    ],
)
def test_what_cannot_be_done_is_refused_with_one_sentence(words: tuple[str, ...], error: str) -> None:
    """Somebody must act first, and reads what."""
    with pytest.raises(Exception, match=error):
        get_command(app).main(list(words), standalone_mode=False)


async def test_the_list_shows_what_was_sent_waits_and_was_given_up(told: Told) -> None:
    """A person sees why nobody was told."""
    async with http_listener() as listener:
        told = told.with_addresses(
            ("chat", f"json://127.0.0.1:{listener.port}"),
            ("mail", f"json://127.0.0.1:{CLOSED_PORT}"),
            keep_trying_seconds=60,
        )
        await told.say("no data")
        await told.send()
        await told.later(61)
        await told.send()
        await told.say("all good", Topic.SUCCEEDED)
        code, out, _ = await run(told, "list", "-e", str(told.path))
    assert code == 0
    sent, given_up, waiting = out.splitlines()
    assert sent.endswith("chat: sent")
    assert "mail: given up: given up after 2 tries: A Connection error" in given_up
    assert waiting.endswith("waiting: no sender has come by yet")


@pytest.mark.parametrize("command", ["resume", "guard", "notify"])
async def test_each_timer_sends_what_is_left(told: Told, command: str) -> None:
    """It waits until the message is sent: systemd would end the sender with it."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"))
        await told.say("no data")
        code, out, errors = await run(told, "--due", "-e", str(told.path), command=command)
        assert (code, len(listener.got)) == (0, 1), out + errors
    assert await told.states() == ["sent"]


async def test_a_killed_sender_loses_no_message(told: Told) -> None:
    """Its claim ends, and the next one sends: at least once, and twice only where the dead one had sent it."""
    async with http_listener() as listener:
        listener.hangs = True
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"))
        await told.say("no data")
        told.monkeypatch.setenv("XDG_STATE_HOME", str(told.path.parent / "state"))
        dying = start_sender(str(told.path))

        async def is_asked() -> bool:
            return listener.tried == 1

        await until(is_asked)
        os.killpg(dying.pid, signal.SIGKILL)
        dying.wait()
        listener.hangs = False
        assert (await told.send()).taken == 0
        await told.later(60)
        assert (await told.send()).taken == 1
    assert len(listener.got) == 1
    [entry] = await told.entries()
    assert (entry.state, entry.tries) == ("sent", 2)


async def test_a_release_starts_a_sender_and_waits_for_nothing(told: Told) -> None:
    """The block ends while the address still hangs, and the sender goes on without it."""
    async with http_listener() as listener:
        listener.hangs = True
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"), answer_seconds=60)
        told.monkeypatch.setenv("XDG_STATE_HOME", str(told.path.parent / "state"))

        async def is_asked() -> bool:
            return listener.tried == 1

        async with telling(str(told.path)):
            await told.say("no data")
            await until(is_asked)
        assert await told.states() == ["waiting"]
        await _end_senders(told.path)


async def test_a_message_of_the_last_moment_is_sent_after_the_end(told: Told) -> None:
    """How a release ended is what matters most: it is written right before the process ends."""
    async with http_listener() as listener:
        told = told.with_addresses(("chat", f"json://127.0.0.1:{listener.port}"))
        told.monkeypatch.setenv("XDG_STATE_HOME", str(told.path.parent / "state"))
        async with telling(str(told.path)):
            await told.say("all good", Topic.SUCCEEDED)

        async def is_sent() -> bool:
            return not await outbox.is_due(told.engine, "told")

        await until(is_sent)
    assert len(listener.got) == 1


async def _end_senders(path: Path) -> None:
    """End the senders that this test has started."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"notify" in words and os.fsencode(path) in words:
            os.kill(int(process.name), signal.SIGKILL)
