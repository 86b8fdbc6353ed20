"""Whatever goes wrong with the source or with us: a sync stops with a sentence, goes on later, and repeats nothing."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from handlers.environment.zoho import Zoho
from handlers.errors import ConfigError, ExitCode, Refused
from handlers.zoho import api, reading, replies, runs
from handlers.zoho.outcome import entities_of
from handlers.zoho.runs import Kind, State, TakenOver
from rehearsal.zoho.server import CLIENT, DAY_IS_OVER, INVALID_TOKEN, NO_SCOPE, Reply, StandIn, problem
from tests.integration.zoho.sources import P, fill, item, place


async def test_an_expired_token_is_renewed_in_the_middle(tmp_path: Path, database_url: str) -> None:
    """Once for all calls that met it, and no call is lost."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 30)

        def expire(path: str, query: Mapping[str, str]) -> None:
            if here.source.calls.total() == 12:
                here.source.expire_tokens()

        here.source.before = expire
        done = await here.sync_and_work(Kind.FULL, P)
        assert done.exit_code is ExitCode.GOOD, done.sentence
        assert (await here.column(P, "name")).keys() == set(keys)
        # As many calls may be under way as are allowed at once; each of them may bring a new token only once.
        assert here.source.tokens_given <= 1 + Zoho.model_fields["calls_at_once"].default


async def test_a_token_that_is_never_good_ends_the_sync(tmp_path: Path, database_url: str) -> None:
    """It is renewed once, not for ever."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 1)
        here.source.fail("/items", INVALID_TOKEN, times=50)
        stopped = await here.sync(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.STOPPED, ExitCode.REFUSED)
        assert "code 14" in stopped.sentence
        assert here.source.asked("/items") == 2


async def test_wrong_secrets_are_refused_by_name(tmp_path: Path, database_url: str) -> None:
    """The source answers with status 200 and no token. No secret is in the sentence."""
    async with place(tmp_path, database_url) as here:
        (tmp_path / "refresh_token").write_text("wrong-t0ken", encoding="utf-8")
        stopped = await here.sync(Kind.FULL, P)
        assert stopped.exit_code is ExitCode.REFUSED
        assert "invalid_code" in stopped.sentence
        assert "zoho.refresh_token" in stopped.sentence
        assert "wrong-t0ken" not in stopped.sentence


async def test_too_many_tokens_are_waited_for(tmp_path: Path, database_url: str) -> None:
    """The source gives ten in ten minutes: the same command works later."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 1)
        here.source.fail("/items", INVALID_TOKEN, times=1000)
        stopped = [await here.sync(Kind.FULL, P) for _ in range(11)]
        assert stopped[-1].exit_code is ExitCode.OWN_ERROR
        assert "gives no access token now" in stopped[-1].sentence


async def test_a_missing_scope_is_no_matter_of_tokens(tmp_path: Path, database_url: str) -> None:
    """The sentence says what to make; nothing is tried again."""
    async with place(tmp_path, database_url) as here:
        here.source.fail("/items", NO_SCOPE, times=9)
        stopped = await here.sync(Kind.FULL, P)
        assert stopped.exit_code is ExitCode.REFUSED
        assert "has no scope for it" in stopped.sentence
        assert here.source.asked("/items") == 1


async def test_the_minutes_limit_is_waited_for(tmp_path: Path, database_url: str) -> None:
    """For as long as the source asks, and by all calls together."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 12)
        here.source.fail("/items/", problem(429, 44, "x", Retry_After="1"), times=1, after=4)
        done = await here.sync_and_work(Kind.FULL, P)
        assert done.exit_code is ExitCode.GOOD
        assert (await here.column(P, "name")).keys() == set(keys)


async def test_without_a_number_a_whole_minute_is_waited_for(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait is said."""
    monkeypatch.setattr(replies, "MINUTE_SECONDS", 0.2)
    caplog.set_level(logging.INFO)
    async with place(tmp_path, database_url) as here:
        fill(here.source, 2)
        here.source.fail("/items/", problem(429, 44, "x"))
        assert (await here.sync(Kind.FULL, P)).exit_code is ExitCode.GOOD
    assert re.search(r"code 44: x; waiting 0.2 s", caplog.text)


async def test_too_many_calls_at_once_become_fewer(tmp_path: Path, database_url: str) -> None:
    """The source has a softer limit than we thought: half as many, down to one."""
    async with place(tmp_path, database_url, "calls_at_once = 8") as here:
        here.source.calls_at_once = 2
        here.source.delay_seconds = 0.01
        keys = fill(here.source, 40)
        done = await here.sync_and_work(Kind.FULL, P)
        assert done.exit_code is ExitCode.GOOD, done.sentence
        assert (await here.column(P, "name")).keys() == set(keys)


async def test_the_end_of_the_day_stops_and_the_next_start_goes_on(tmp_path: Path, database_url: str) -> None:
    """Exit code 4 with the time; until then nothing is asked; what was read is not read again."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 80)
        here.source.fail("/items/", DAY_IS_OVER, times=1000, after=60)
        stopped = await here.sync_and_work(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.WAITING, ExitCode.HELD)
        assert "the sync goes on where it is in 2 h 00 min" in stopped.sentence
        read = len(await here.column(P, "name"))
        assert read == 60
        calls = here.source.calls.total()
        with pytest.raises(runs.Waits, match="waits: Zoho"):
            await here.sync(Kind.FULL, P)
        assert here.source.calls.total() == calls
        here.source.faults.clear()
        await here.database_says("UPDATE runbook.sync_run SET resume_at = clock_timestamp()")
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.state, done.run) == (State.DONE, stopped.run)
        assert (await here.column(P, "name")).keys() == set(keys)
        events = [event.key for event in await here.events()]
        assert len(events) == len(set(events)) == 80
        assert here.source.asked("/items/") - 80 <= 60  # Those that were refused, and none twice.


async def test_our_own_budget_of_a_day_is_kept_by_all_syncs_together(
    tmp_path: Path, database_url: str
) -> None:
    """Counted in the ledger, also what a refused call has used."""
    async with place(tmp_path, database_url, "calls_per_day = 10") as here:
        fill(here.source, 30)
        stopped = await here.sync(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.WAITING, ExitCode.HELD)
        assert "the 10 calls of zoho.calls_per_day are used up" in stopped.sentence
        assert here.source.calls.total() == 10
        stock = await here.sync(Kind.STOCK)
        assert stock.state is State.WAITING
        assert here.source.calls.total() == 10
        await here.database_says("UPDATE runbook.sync_day SET day = day - 1")
        await here.database_says("UPDATE runbook.sync_run SET resume_at = NULL")
        again = await here.sync(Kind.FULL, P)
        assert (again.state, here.source.calls.total()) == (State.WAITING, 20)


@pytest.mark.parametrize(
    "reply",
    [
        problem(500, 1000, "Internal error"),
        Reply(status=502, body="<html>Bad Gateway</html>"),
        Reply(status=200, body="<html>Please wait</html>"),
        Reply(status=200, cut=True),
    ],
    ids=["code 1000", "proxy", "good status of a proxy", "cut"],
)
async def test_a_fault_that_passes_costs_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    """The call is made again after a pause."""
    monkeypatch.setattr(api, "_PAUSE_FIRST_SECONDS", 0.01)
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 3)
        here.source.fail("/items$", reply, times=2)
        here.source.fail("/items/", reply, times=2)
        assert (await here.sync_and_work(Kind.FULL, P)).exit_code is ExitCode.GOOD
        assert (await here.column(P, "name")).keys() == set(keys)


async def test_a_fault_that_stays_stops_the_sync_and_keeps_what_was_read(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1: the same command goes on."""
    monkeypatch.setattr(api, "_PAUSE_FIRST_SECONDS", 0.001)
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 20)
        here.source.fail("/items/", problem(500, 1000, "Internal error"), times=1000, after=10)
        stopped = await here.sync(Kind.FULL, P)
        assert (stopped.state, stopped.exit_code) == (State.STOPPED, ExitCode.OWN_ERROR)
        assert "code 1000: Internal error, 6 times in a row" in stopped.sentence
        assert len(await here.events()) == 10
        here.source.faults.clear()
        assert (await here.sync_and_work(Kind.FULL, P)).state is State.DONE
        assert [event.key for event in await here.events()].sort() == keys.sort()


async def test_an_answer_that_nobody_can_store_is_named(tmp_path: Path, database_url: str) -> None:
    """A number that is none, one key twice, a character that PostgreSQL refuses; the others are read."""
    async with place(tmp_path, database_url) as here:
        keys = fill(here.source, 4)
        for key, body in zip(
            keys,
            (
                '{"code": 0, "item": {"item_id": "%s", "rate": NaN}}',
                '{"code": 0, "item": {"item_id": "%s", "rate": 1, "rate": 2}}',
                '{"code": 0, "item": {"item_id": "%s", "name": "\\u0000"}}',
            ),
            strict=False,
        ):
            here.source.fail(f"/items/{key}$", Reply(status=200, body=body % key), times=9)
        done = await here.sync_and_work(Kind.FULL, P)
        assert (done.exit_code, done.steps[0].unreadable) == (ExitCode.HELD, 3)
        assert (await here.column(P, "name")).keys() == {keys[3]}


async def test_another_record_than_asked_for_is_not_stored(tmp_path: Path, database_url: str) -> None:
    """Under either id."""
    async with place(tmp_path, database_url) as here:
        [key] = fill(here.source, 1)
        other = {"code": 0, "item": dict(item(7))}
        here.source.fail(f"/items/{key}$", Reply(status=200, body=other))
        done = await here.sync_and_work(Kind.FULL, P)
        assert done.steps[0].unreadable == 1
        assert await here.column(P, "name") == {}


async def test_the_wrong_organisation_deletes_nothing(tmp_path: Path, database_url: str) -> None:
    """Every call is refused, also the second look."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        await here.sync_and_work(Kind.FULL, P)
        here.source.fail("/items", problem(400, 4029, "wrong"), times=99)
        stopped = await here.sync(Kind.FULL, P)
        assert stopped.exit_code is ExitCode.REFUSED
        assert "zoho.organization_id" in stopped.sentence
        assert len(await here.column(P, "name")) == 3


async def test_one_sync_of_a_kind_runs_at_a_time(tmp_path: Path, database_url: str) -> None:
    """The second is refused while the first runs; one of another kind is not."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        here.source.hold = asyncio.Event()
        first = asyncio.create_task(here.sync(Kind.FULL, P))
        await here.source.called.wait()
        with pytest.raises(Refused, match=r"a sync \(full\) of synced is running already"):
            await here.sync(Kind.FULL, P)
        here.source.hold.set()
        assert (await here.sync(Kind.STOCK)).state is State.DONE
        assert (await first).state is State.DONE


async def test_who_lost_a_sync_writes_nothing_any_more(tmp_path: Path, database_url: str) -> None:
    """It was suspended, another process carried the sync on, and then it wakes."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        run = await runs.begin(here.core.database, "synced", Kind.FULL, entities_of(Kind.FULL, [P]), by="a")
        other = await runs.begin(here.core.database, "synced", Kind.FULL, entities_of(Kind.FULL, [P]), by="b")
        assert other.id == run.id
        with pytest.raises(TakenOver, match="has taken over"):
            await reading.read(here.core, run, P)
        assert await here.events() == []
        assert (await reading.read(here.core, other, P)).queued == 3


async def test_other_entity_types_begin_a_new_sync(tmp_path: Path, database_url: str) -> None:
    """The open one is closed: it was not finished, and the next full one reads everything again."""
    async with place(tmp_path, database_url) as here:
        fill(here.source, 2)
        here.source.fail("/items", NO_SCOPE, times=1)
        stopped = await here.sync(Kind.FULL, P)
        everything = await here.sync(Kind.FULL)
        assert (everything.run != stopped.run, everything.state) == (True, State.DONE)
        states = await here.query("SELECT state FROM runbook.sync_run ORDER BY id")
        assert [row.state for row in states] == ["replaced", "done"]


async def test_no_secret_is_said(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the refresh token, nor the client's secret, nor an access token: not in logs, not in the ledger."""
    monkeypatch.setattr(api, "_PAUSE_FIRST_SECONDS", 0.001)
    caplog.set_level(logging.DEBUG)
    async with place(tmp_path, database_url) as here:
        fill(here.source, 3)
        for reply in (problem(500, 1000, "x"), INVALID_TOKEN, Reply(status=200, cut=True), NO_SCOPE):
            here.source.fail("/items/", reply)
        await here.sync(Kind.FULL, P)
        await here.sync(Kind.FULL, P)
        ledger = str(await here.query("SELECT * FROM runbook.sync_run")) + str(
            await here.query("SELECT * FROM runbook.sync_step")
        )
        said = caplog.text + ledger + str(await here.query("SELECT webhook_headers FROM tds_inbox_events"))
    assert "sync" in said
    assert [secret for secret in (*CLIENT.values(), "1000.access-") if secret in said] == []


async def test_an_environment_without_the_table_says_so(tmp_path: Path, database_url: str) -> None:
    """Exit code 5, with the place where the table is explained."""
    async with place(tmp_path, database_url) as here:
        text = here.path.read_text(encoding="utf-8").partition("[zoho]")[0]
        here.path.write_text(text, encoding="utf-8")
        from handlers.core import open_core
        from handlers.environment.load import load_environment

        async with open_core(load_environment(str(here.path))) as core:
            with pytest.raises(ConfigError, match=r"no table \[zoho\]"):
                reading.settings_of(core)


def test_a_stand_in_with_limits_is_what_the_tests_talk_to() -> None:
    """The defaults of the stand-in are those of the source."""
    assert (StandIn().calls_at_once, StandIn().token_seconds) == (10, 3600)
