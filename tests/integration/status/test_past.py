"""Who names no release means the one that runs, and the history says when, what, by whom, and why."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli import history_text
from handlers.database.transaction import transaction
from handlers.release import due
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, Verdict
from handlers.status.lines import lines
from handlers.status.past import past
from handlers.status.snapshot import read
from tests.integration.release.steps import begun, deploying, in_phase, locked, plan_of

CANARY = (Phase.PROBING, Phase.CANARY)


async def by_hand(engine: AsyncEngine, by: str = "ops-b") -> Release:
    """A canary by hand, planned."""
    plan = replace(plan_of(), from_revision="b" * 40, scope=CANARY)
    return await releases.begin(engine, plan=plan, requested_by=by, reason="a second proof")


async def refused(engine: AsyncEngine, release: Release) -> Release:
    """The release, refused before it changed anything."""
    sentence = "the lock is held by ops-a"
    return await releases.enter(engine, release, Phase.REFUSED, verdict=Verdict.FAIL, sentence=sentence)


async def test_a_refused_canary_does_not_hide_the_release_that_runs(engine: AsyncEngine) -> None:
    """It is named below, with who started it and why it ended."""
    runs = await in_phase(engine, Phase.SUCCEEDED)
    other = await refused(engine, await by_hand(engine))
    view = await read(engine, "staging")
    assert view.release is not None
    assert view.release.id == runs.id
    assert [(later.id, later.kind, later.phase) for later in view.later] == [
        (other.id, "canary", Phase.REFUSED)
    ]
    shown = " ".join(" ".join(lines(view)).split())
    assert f"canary {other.id} by ops-b at" in shown
    assert "refused: the lock is held by ops-a" in shown


async def test_a_refused_release_does_not_hide_the_release_that_runs(engine: AsyncEngine) -> None:
    runs = await in_phase(engine, Phase.SUCCEEDED)
    await refused(engine, await begun(engine))
    view = await read(engine, "staging")
    assert view.release is not None
    assert view.release.id == runs.id


async def test_a_release_that_waits_for_its_start_is_shown(engine: AsyncEngine) -> None:
    """Somebody has to start or end it."""
    await in_phase(engine, Phase.SUCCEEDED)
    waits = await begun(engine)
    view = await read(engine, "staging")
    assert view.release is not None
    assert view.release.id == waits.id


async def test_a_live_phase_by_hand_is_shown(engine: AsyncEngine) -> None:
    """It holds the lock: who asks what goes on must see it."""
    await in_phase(engine, Phase.SUCCEEDED)
    live = await deploying(engine, release=await by_hand(engine))
    view = await read(engine, "staging")
    assert view.release is not None
    assert view.release.id == live.id
    assert lines(view)[0].startswith(f"canary {live.id}")


async def test_only_refused_ones_show_the_newest(engine: AsyncEngine) -> None:
    await refused(engine, await begun(engine))
    newest = await refused(engine, await begun(engine))
    view = await read(engine, "staging")
    assert view.release is not None
    assert view.release.id == newest.id
    assert view.later == ()


async def test_a_phase_by_hand_has_only_its_own_steps(engine: AsyncEngine) -> None:
    """A canary that says `[done] watch` has hidden that nobody watched."""
    release = await releases.enter(engine, await by_hand(engine), Phase.APPROVED)
    release = await locked(engine, release)
    for phase in (
        Phase.DEPLOYING,
        Phase.PROBING,
        Phase.CANARY,
        Phase.DRAINING,
        Phase.WATCHING,
        Phase.SUCCEEDED,
    ):
        release = await releases.enter(engine, release, phase, verdict=Verdict.PASS, sentence="x")
    view = await read(engine, "staging", release.id)
    assert [step.name for step in view.steps] == ["plan", "approval", "probe", "canary"]


async def test_the_history_says_when_what_by_whom_why_and_how_it_ended(engine: AsyncEngine) -> None:
    """In 80 columns; a long end is cut."""
    await in_phase(engine, Phase.SUCCEEDED)
    long = await by_hand(engine)
    await releases.enter(engine, long, Phase.REFUSED, verdict=Verdict.FAIL, sentence="word " * 100)
    open_ = await begun(engine)
    async with transaction(engine) as tx:
        known = await past(tx, "staging")
        cares = [await due.care(tx, each.release) for each in known]
    text = list(history_text.lines(known, cares))
    assert max(map(len, text)) <= 80
    assert text[0].startswith(f"{open_.id:<14} ")
    assert "UTC, not ended  aaaaaaa -> bbbbbbb" in text[0]
    assert "by ops-a" in text[1]
    assert f"{long.id:<14} " in text[3]
    assert text[3].endswith("canary by hand on bbbbbbb")
    assert text[4].strip() == "by ops-b: a second proof"
    assert text[5].strip().startswith("REFUSED: word")
    assert text[7].endswith("...")
    assert text[-1].strip() == "SUCCEEDED"
