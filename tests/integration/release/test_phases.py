"""Releases in the ledger: begun, moved, held, resumed; two managers, stale controllers, kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import LockLost, Refused
from handlers.release import lock
from handlers.release.ledger.releases import enter, get, hold, latest, live, note, phase_records, plan, resume
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import FINISHED, Phase, Verdict
from tests.integration.release.steps import begun, deploying, locked, plan_of


async def test_a_release_is_written_down_before_anything_is_done(engine: AsyncEngine) -> None:
    """After begin the ledger knows the plan and an open phase, and owns nothing."""
    release = await begun(engine)
    assert release.phase is Phase.PLANNED
    assert release.token is None
    assert await get(engine, release.id) == release == await latest(engine, "staging")
    assert await live(engine, "staging") is None
    assert await plan(engine, release.id) == plan_of()
    [record] = await phase_records(engine, release)
    assert (record.phase, record.finished_at) == (Phase.PLANNED, None)


async def test_ids_count_within_a_day_also_when_many_begin_at_once(engine: AsyncEngine) -> None:
    """Eight at once get eight different numbers without a gap."""
    releases = await asyncio.gather(*(begun(engine, f"place-{n % 2}") for n in range(8)))
    days = {release.id.rsplit(".", 1)[0] for release in releases}
    assert len(days) == 1
    assert sorted(int(release.id.rsplit(".", 1)[1]) for release in releases) == list(range(1, 9))


async def test_a_phase_closes_with_its_conclusion_and_the_next_opens(engine: AsyncEngine) -> None:
    """One move is one fact: verdict, sentence and note on the old record, a new open one, the new phase."""
    release = await deploying(engine)
    seen = {"web-1": HostNote(have="b", seen_at=datetime(2026, 1, 2, tzinfo=UTC))}
    await note(engine, release, PhaseNote(hosts=seen, looked="web-1 is well"))
    release = await enter(
        engine,
        release,
        Phase.PROBING,
        verdict=Verdict.PASS,
        sentence="2 of 2 hosts",
        note=PhaseNote(changed=True),
    )
    records = await phase_records(engine, release)
    assert [record.phase for record in records] == ["planned", "approved", "deploying", "probing"]
    assert records[2].verdict is Verdict.PASS
    assert records[2].sentence == release.reason == "2 of 2 hosts"
    assert records[2].note == PhaseNote(hosts=seen, looked="web-1 is well", changed=True)
    assert [record.finished_at is None for record in records] == [False, False, False, True]


async def test_an_illegal_move_is_refused_and_changes_nothing(engine: AsyncEngine) -> None:
    """A planned release cannot jump to watching."""
    release = await begun(engine)
    with pytest.raises(Refused, match=r"is planned: it cannot become watching"):
        await enter(engine, release, Phase.WATCHING)
    assert await get(engine, release.id) == release


async def test_no_host_is_changed_without_the_lock(engine: AsyncEngine) -> None:
    """A release without a token cannot start to deploy."""
    release = await enter(engine, await begun(engine), Phase.APPROVED)
    with pytest.raises(Refused, match="before it has the lock of staging"):
        await enter(engine, release, Phase.DEPLOYING)


async def test_a_second_live_release_is_refused_and_the_first_is_named(engine: AsyncEngine) -> None:
    """The unique index decides between two managers; the loser reads who won."""
    first = await deploying(engine)
    second = await enter(engine, await begun(engine), Phase.APPROVED)
    await lock.take_over(engine, "staging", second.id, "ops-b:2", reason="test")
    second = await get(engine, second.id)
    with pytest.raises(Refused, match=rf"release {first.id} is deploying in staging"):
        await enter(engine, second, Phase.DEPLOYING)
    assert (await get(engine, second.id)).phase is Phase.APPROVED


async def test_another_environment_is_not_in_the_way(engine: AsyncEngine) -> None:
    """One live release for each environment, not for each database."""
    one, two = await deploying(engine, "staging"), await deploying(engine, "production")
    assert await live(engine, "staging") == one
    assert await live(engine, "production") == two


async def test_two_who_move_the_same_release_do_not_both_succeed(engine: AsyncEngine) -> None:
    """Both read it once; one continues and the other rolls back: exactly one of them is refused."""
    release = await deploying(engine)
    done = await asyncio.gather(
        enter(engine, release, Phase.PROBING),
        enter(engine, release, Phase.ROLLING_BACK),
        return_exceptions=True,
    )
    lost = [result for result in done if isinstance(result, Refused)]
    assert len(lost) == 1
    assert "now, not deploying: another controller moved it" in str(lost[0])


async def test_entering_twice_under_the_same_lock_is_harmless(engine: AsyncEngine) -> None:
    """A retry after a commit whose answer was lost finds the move made, with no second record."""
    release = await deploying(engine)
    once = await enter(engine, release, Phase.PROBING)
    assert await enter(engine, release, Phase.PROBING) == once
    finished = await enter(engine, once, Phase.ROLLING_BACK)
    final = await enter(engine, finished, Phase.ROLLED_BACK)
    assert await enter(engine, finished, Phase.ROLLED_BACK) == final
    assert len(await phase_records(engine, release)) == 6


async def test_a_controller_whose_lock_was_taken_cannot_move_the_release(engine: AsyncEngine) -> None:
    """The old token is refused with LockLost, whatever phase it asks for."""
    release = await deploying(engine)
    await lock.take_over(engine, "staging", release.id, "ops-b:9", reason="ops-a is asleep")
    with pytest.raises(LockLost):
        await enter(engine, release, Phase.PROBING)
    assert (await get(engine, release.id)).phase is Phase.DEPLOYING


async def test_a_release_whose_lock_went_to_another_release_cannot_move(engine: AsyncEngine) -> None:
    """A lock that another release took fences the first one off, though its own token did not change."""
    release = await deploying(engine)
    other = await begun(engine)
    await lock.take_over(engine, "staging", other.id, "ops-b:9", reason="urgent")
    with pytest.raises(LockLost, match=r"ops-b:9 has taken the lock"):
        await enter(engine, release, Phase.PROBING)


async def test_a_held_release_knows_where_to_go_on_and_leaves_the_lock_free(engine: AsyncEngine) -> None:
    """Hold keeps the phase; a person resumes it under a lock of their own."""
    release = await enter(engine, await deploying(engine), Phase.PROBING)
    held = await hold(engine, release, "web-2 answers now and then")
    assert (held.phase, held.resume_phase, held.finished_at) == (Phase.HELD, Phase.PROBING, None)
    assert await lock.holder(engine, "staging") is None
    assert (await live(engine, "staging")) == held
    with pytest.raises(LockLost, match="take it again"):
        await resume(engine, held)
    resumed = await resume(engine, await locked(engine, held, "ops-b:2"))
    assert (resumed.phase, resumed.resume_phase) == (Phase.PROBING, None)


async def test_only_a_held_release_can_be_resumed(engine: AsyncEngine) -> None:
    """Resuming something that runs is refused."""
    with pytest.raises(Refused, match="only a held release"):
        await resume(engine, await deploying(engine))


@pytest.mark.parametrize("last", [Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED])
async def test_a_finish_time_exists_exactly_in_final_phases(engine: AsyncEngine, last: Phase) -> None:
    """Finishing stamps the time and frees the lock; going on from a final phase clears the time again."""
    release = await deploying(engine)
    path = (
        [Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, last]
        if last is Phase.SUCCEEDED
        else [Phase.ROLLING_BACK, last]
    )
    for phase in path:
        release = await enter(engine, release, phase)
        assert (release.finished_at is not None) is (phase in FINISHED)
    assert await lock.holder(engine, "staging") is None
    if last is not Phase.ROLLED_BACK:
        back = await enter(engine, await locked(engine, release), Phase.ROLLING_BACK)
        assert back.finished_at is None


async def test_an_unknown_release_is_refused_with_where_to_look(engine: AsyncEngine) -> None:
    """A misspelt id is a sentence, not a trace."""
    with pytest.raises(Refused, match=r"there is no release 2020-01-01\.1"):
        await get(engine, "2020-01-01.1")


async def test_what_cannot_be_stored_is_cleaned_not_lost(engine: AsyncEngine) -> None:
    """NUL characters and broken surrogates from outside do not stop a move."""
    release = await enter(
        engine,
        await begun(engine),
        Phase.APPROVED,
        sentence="a\x00b\ud800",
        note=PhaseNote(why="\x00x", failed={"out\x00put": 1}),
    )
    assert release.reason == "ab?"
    assert (await phase_records(engine, release))[0].note == PhaseNote(why="x", failed={"output": 1})


_MOVER = """
import asyncio, os, sys
from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import Phase
from sqlalchemy.ext.asyncio import create_async_engine

async def main(url, release_id):
    engine = create_async_engine(url)
    release = await releases.get(engine, release_id)
    print("ready", flush=True)
    while True:
        release = await releases.enter(engine, release, Phase.HELD, sentence="hold")
        async with engine.begin() as tx:
            await lock.take(tx, release.environment, release.id, "mover")
        release = await releases.resume(engine, await releases.get(engine, release_id))
        print(release.phase, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_kill_between_any_two_lines_leaves_one_open_phase(engine: AsyncEngine) -> None:
    """Whenever a controller is killed, the release has exactly one open record, that of its phase."""
    release = await deploying(engine)
    url = engine.url.render_as_string(hide_password=False)
    for wait in (0.0, 0.007, 0.013, 0.021):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _MOVER, url, release.id, stdout=asyncio.subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        try:
            lines = [await asyncio.wait_for(process.stdout.readline(), 60) for _ in range(2)]
            assert lines == [b"ready\n", b"deploying\n"]
            await asyncio.sleep(wait)
        finally:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
        async with engine.connect() as tx:
            opened = (
                await tx.execute(
                    text(
                        "SELECT p.phase = r.phase FROM runbook.phase_record p JOIN runbook.release r "
                        "ON r.id = p.release_id WHERE p.finished_at IS NULL"
                    )
                )
            ).scalars()
            assert list(opened) == [True]
        now = await locked(engine, await get(engine, release.id), "mover")
        if now.phase is Phase.HELD:
            await resume(engine, now)


async def test_a_release_that_was_read_before_its_lock_must_be_read_again(engine: AsyncEngine) -> None:
    """A stale copy without the token cannot move a release that another controller has locked."""
    stale = await begun(engine)
    await locked(engine, stale)
    with pytest.raises(LockLost, match="read again"):
        await enter(engine, stale, Phase.APPROVED)
