"""The status view: from the ledger alone, at one moment, and readable in 80 columns."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.errors import Refused
from handlers.gate import rules
from handlers.gate.values import Count, Measurement, Thresholds
from handlers.queue import limits
from handlers.queue.event import EntityType
from handlers.queue.throttle import gate_of, throttle
from handlers.release import lock
from handlers.release.ledger import durations, records, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.note import HostNote, NextLook, PhaseNote, ReturnNote
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.planned import EVERYTHING
from handlers.status.lines import lines
from handlers.status.snapshot import read
from handlers.status.view import HostView, StatusView, StepState, StepView
from tests.integration.release.steps import begun, deploying, locked, plan_of


async def watching(engine: AsyncEngine) -> Release:
    """A release in the watch."""
    release = await deploying(engine)
    await releases.note(
        engine,
        release,
        PhaseNote(
            hosts={
                "web-1": HostNote(have="b" * 40, ok=True, seen_at=datetime.now(UTC)),
                "web-2": HostNote(ok=False),
            }
        ),
    )
    for phase, sentence in (
        (Phase.PROBING, "web-1 then web-2, 38 s"),
        (Phase.CANARY, "2 of 2 hosts"),
        (Phase.DRAINING, "product 26 completed, 1.8 s"),
        (Phase.WATCHING, "57 of 57 settled"),
    ):
        release = await releases.enter(engine, release, phase, verdict=Verdict.PASS, sentence=sentence)
    return release


async def test_an_environment_without_a_release_says_so(engine: AsyncEngine) -> None:
    """An environment without a release is not an error."""
    view = await read(engine, "staging")
    assert view.release is None
    assert lines(view) == ["staging: no release yet"]


async def test_the_view_says_what_limits_the_queue(engine: AsyncEngine) -> None:
    """The limit of the gate and of a person, with name, quota and end; not any more when it is lifted."""
    release = await watching(engine)
    held = {"seconds": 60, "tick_seconds": 10, "reason": "3 of 3 failed"}
    await throttle(engine, {EntityType.INVOICE: 3}, by=gate_of(release.id), **held)
    await limits.limit(engine, None, per_ten_seconds=50, seconds=60, by="ops-a", reason="slow disk")
    shown = " ".join(" ".join(lines(await read(engine, release.environment))).split())
    assert "Limited 50 events of all types together in 10 s until" in shown
    assert f"by ops-a: slow disk Limited 3 events of {EntityType.INVOICE} in 10 s until" in shown
    assert f"by gate of release {release.id}: 3 of 3 failed" in shown
    await limits.lift_all(engine)
    assert (await read(engine, release.environment)).limits == ()


async def test_the_view_says_why_and_what_comes_next(engine: AsyncEngine) -> None:
    """Judgement, minute, next look, wanted and actual revisions, lock and steps."""
    release = await watching(engine)
    judgement = rules.judge_watch(Measurement(counts=(Count(entity="Product", completed=12),)), Thresholds())
    await records.record_judgement(engine, release, judgement)
    await releases.note(
        engine,
        release,
        PhaseNote(
            window_seconds=1800,
            next=NextLook(what="next check", at=datetime.now(UTC) + timedelta(seconds=41)),
        ),
    )
    view = await read(engine, "staging")
    assert view.why == judgement.sentence
    assert view.findings == {"INCONCLUSIVE": 1}
    assert [(host.name, (host.have or "")[:1], host.good) for host in view.hosts] == [
        ("web-1", "b", True),
        ("web-2", "", False),
    ]
    assert {host.want for host in view.hosts} == {"b" * 40}
    assert view.lock is not None
    assert {step.name: step.state for step in view.steps} == {
        "plan": StepState.DONE,
        "approval": StepState.DONE,
        "deploy": StepState.DONE,
        "probe": StepState.DONE,
        "canary": StepState.DONE,
        "drain": StepState.DONE,
        "watch": StepState.RUNNING,
        "rollback": StepState.ARMED,
        "guard": StepState.LATER,
    }
    text = "\n".join(lines(view))
    assert f"release {release.id}  WATCHING  minute 0 of 30, next check in 00:4" in text
    assert "8 more must complete before" in text
    assert "want bbbbbbb" in text
    assert "web-2 unknown NOT OK" in text
    assert "[armed]   rollback         to aaaaaaa" in text
    assert json.loads(json.dumps(view.as_json()))["release"]["phase"] == "watching"


async def test_a_planned_release_shows_the_way_before_it(engine: AsyncEngine) -> None:
    """Steps that have not begun are next or later; no rollback is armed before a change."""
    await begun(engine)
    view = await read(engine, "staging")
    states = [step.state for step in view.steps]
    assert states == [StepState.RUNNING, StepState.NEXT, *[StepState.LATER] * 5]
    assert view.need == "nobody has started it: `runbook resume` does, `runbook abort` ends it"


async def test_a_phase_that_has_told_nothing_yet_says_what_it_is_busy_with(engine: AsyncEngine) -> None:
    """A running step has a sentence in every phase, also before its first measurement."""
    release = await deploying(engine)
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.ROLLING_BACK, None):
        [running] = [s for s in (await read(engine, "staging")).steps if s.state is StepState.RUNNING]
        assert running.sentence, release.phase
        if phase is not None:
            verdict = Verdict.FAIL if phase is Phase.ROLLING_BACK else Verdict.PASS
            release = await releases.enter(engine, release, phase, verdict=verdict, sentence="went on")


async def test_why_is_about_the_phase_that_runs(engine: AsyncEngine) -> None:
    """A running phase shows its own progress, a rollback why it began, not the conclusion of the phase before."""
    release = await deploying(engine)
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING):
        sentence = f"{release.phase} went well"
        release = await releases.enter(engine, release, phase, verdict=Verdict.PASS, sentence=sentence)
        view = await read(engine, "staging")
        assert view.why != sentence
        assert view.why == next(step.sentence for step in view.steps if step.state is StepState.RUNNING)
    await releases.enter(
        engine, release, Phase.ROLLING_BACK, verdict=Verdict.FAIL, sentence="3 of 9 completed"
    )
    assert (await read(engine, "staging")).why == "3 of 9 completed"


async def test_a_rollback_wants_the_previous_revision(engine: AsyncEngine) -> None:
    """During and after a rollback the wanted revision is the previous one."""
    release = await watching(engine)
    release = await releases.enter(
        engine, release, Phase.ROLLING_BACK, verdict=Verdict.FAIL, sentence="3 of 9 completed"
    )
    release = await releases.enter(
        engine, release, Phase.ROLLBACK_FAILED, verdict=Verdict.FAIL, sentence="web-2 does not answer"
    )
    view = await read(engine, "staging")
    assert {host.want for host in view.hosts} == {"a" * 40}
    assert [(step.name, step.state) for step in view.steps[-2:]] == [
        ("watch", StepState.FAILED),
        ("rollback", StepState.FAILED),
    ]
    assert "a person looks at the hosts that are not back" in view.need
    assert view.lock is None


async def test_the_progress_of_each_host_is_that_of_the_running_phase(engine: AsyncEngine) -> None:
    """The newest operation of each host, while hosts are changed; an earlier phase's are not shown any more."""
    release = await deploying(engine)
    recorder = LedgerRecorder(engine=engine, release=release)
    for host, kind, outcome in (
        ("web-1", "prepare", "done"),
        ("web-1", "activate", None),
        ("web-2", "prepare", None),
    ):
        await recorder.intend(f"{host}-{kind}", host, kind, "true")
        if outcome:
            await recorder.confirm(f"{host}-{kind}", outcome, 0, "")
    view = await read(engine, "staging")
    assert [(step.name, step.step, step.outcome) for step in view.host_steps] == [
        ("web-1", "activate", None),
        ("web-2", "prepare", None),
    ]
    deploy = next(step for step in view.steps if step.name == "deploy")
    assert [(host.host, [(step.step, step.state) for step in host.steps]) for host in deploy.hosts] == [
        ("web-1", [("prepare", StepState.DONE), ("switch", StepState.RUNNING)]),
        ("web-2", [("prepare", StepState.RUNNING)]),
    ]
    assert [wait.what for wait in view.waits] == ["switch of web-1", "prepare of web-2"]
    text = "\n".join(lines(view))
    assert re.search(r"^   web-1 \[running\] switch   \d\.\d s, since \d\d:\d\d:\d\d$", text, re.MULTILINE)
    await releases.enter(engine, release, Phase.PROBING)
    assert (await read(engine, "staging")).host_steps == ()


async def test_a_step_that_failed_says_the_last_line_of_its_output(engine: AsyncEngine) -> None:
    """Of the newest operation of its kind, and not of one that a later try has done again."""
    release = await deploying(engine)
    recorder = LedgerRecorder(engine=engine, release=release)
    for name, host, outcome, output in (
        ("first", "web-1", "failed", "an older try"),
        ("again", "web-1", "done", "all is well"),
        ("other", "web-2", "failed", "fetching\nfatal: no space left on device\n\n"),
    ):
        await recorder.intend(name, host, "prepare", "true")
        await recorder.confirm(name, outcome, 1, output)
    deploy = next(step for step in (await read(engine, "staging")).steps if step.name == "deploy")
    found = {host.host: host.steps[0] for host in deploy.hosts}
    assert (found["web-1"].state, found["web-1"].sentence) == (StepState.DONE, "")
    assert found["web-2"].sentence == "failed: fatal: no space left on device"
    text = "\n".join(lines(await read(engine, "staging")))
    assert re.search(
        r"^   web-2 \[failed\]  prepare  0\.\d s: failed: fatal: no space left on", text, re.MULTILINE
    )


async def test_durations_stand_beside_those_of_the_release_before(engine: AsyncEngine) -> None:
    """The plan keeps what was usual, and the view reads it from there."""
    first = await deploying(engine)
    recorder = LedgerRecorder(engine=engine, release=first)
    await recorder.intend("first-switch", "web-1", "activate", "true")
    await recorder.confirm("first-switch", "done", 0, "")
    for phase in (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED):
        first = await releases.enter(engine, first, phase, verdict=Verdict.PASS)
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.operation SET started_at = finished_at - interval '7 s'"))
        await tx.execute(
            text("""UPDATE runbook.phase_record SET started_at = finished_at - interval '38 s'
            WHERE phase = 'deploying'""")
        )
    plan = replace(
        plan_of(),
        usual=await durations.usual(engine, "staging", EVERYTHING),
        usual_steps=await durations.usual_steps(engine, "staging"),
    )
    second = await deploying(engine, release=await releases.begin(engine, plan=plan, requested_by="ops-a"))
    recorder = LedgerRecorder(engine=engine, release=second)
    await recorder.intend("second-switch", "web-1", "activate", "true")
    view = await read(engine, "staging")
    deploy = next(step for step in view.steps if step.name == "deploy")
    assert (deploy.usual_seconds, deploy.hosts[0].steps[0].usual_seconds) == (38.0, 7.0)
    assert [wait.usual_seconds for wait in view.waits] == [7.0]
    assert view.usual_releases == 1
    shown = "\n".join(lines(view))
    assert re.search(r"\[running\] deploy .* s \(usual 38 s\): ", shown)
    assert re.search(r"web-1 \[running\] switch   \d\.\d s \(usual 7\.0 s\), since", shown)


async def test_a_held_release_says_what_a_person_can_do(engine: AsyncEngine) -> None:
    """Why it was held, and the three commands that a person can choose."""
    await releases.hold(engine, await watching(engine), "the database did not answer for 10 min")
    view = await read(engine, "staging")
    assert view.why == "the database did not answer for 10 min"
    assert "runbook resume" in view.need


async def test_the_live_release_is_shown_before_a_newer_plan(engine: AsyncEngine) -> None:
    """A newer plan does not hide the live release; the plan is shown by its id."""
    live = await deploying(engine)
    newer = await begun(engine)
    first = (await read(engine, "staging")).release
    second = (await read(engine, "staging", newer.id)).release
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == (live.id, newer.id)
    with pytest.raises(Refused, match="belongs to staging"):
        await read(engine, "production", newer.id)


async def test_reading_changes_nothing_and_needs_no_lock(engine: AsyncEngine) -> None:
    """The view does not wait for a transaction that has locked the row of the release."""
    release = await locked(engine, await begun(engine))
    async with engine.begin() as tx:
        await lock.fence(tx, "staging", release.token)
        await releases.enter(tx, release, Phase.APPROVED)
        view = await read(engine, "staging")
    assert view.release == release


async def test_a_database_without_a_ledger_says_what_to_do(erp_url: str) -> None:
    """A missing schema is reported in a sentence."""
    bare = create_async_engine(make_url(erp_url).set(drivername="postgresql+asyncpg"))
    try:
        with pytest.raises(Refused, match=r"the ledger in .* is missing"):
            await read(bare, "staging")
    finally:
        await bare.dispose()


def release_at(at: datetime, reason: str) -> Release:
    """A view of a release in the watch."""
    return Release(
        id="2025-11-14.3",
        environment="staging",
        from_revision="a" * 40,
        to_revision="b" * 40,
        requested_by="ops",
        phase=Phase.WATCHING,
        resume_phase=None,
        token=1,
        speed=1,
        reason=reason,
        created_at=at,
        finished_at=None,
    )


@given(
    sentence=st.text(max_size=400),
    name=st.text(min_size=1, max_size=60),
    width=st.integers(min_value=60, max_value=120),
)
def test_no_line_is_wider_than_it_may_be(sentence: str, name: str, width: int) -> None:
    """No long line and no control character, with any text from hosts and payloads."""
    at = datetime(2025, 11, 14, 14, 2, tzinfo=UTC)
    release = release_at(at, sentence)
    view = StatusView(
        environment="staging",
        at=at,
        release=release,
        why=sentence,
        need=sentence,
        hosts=(HostView(name=name, want="b", have="c", good=True, note=sentence, seen_at=at),),
        steps=(StepView(name="watch", state=StepState.RUNNING, at=at, sentence=sentence),),
        findings={"HEALTHY": 3},
    )
    shown = lines(view, width)
    assert max(len(line) for line in shown) <= width
    assert not any(ord(char) < 32 for line in shown for char in line)


@pytest.mark.parametrize("height", [40, 23, 12, 6])
def test_the_view_fits_a_low_terminal_and_keeps_what_matters(height: int) -> None:
    """Past and future steps are left out first; phase, why, need and the running step are always shown."""
    at = datetime(2025, 11, 14, 14, 2, tzinfo=UTC)
    long = "a sentence that goes on and on, because somebody wanted to know everything about it and then some more"
    states = [*[StepState.DONE] * 6, StepState.RUNNING, StepState.ARMED]
    names = ["plan", "approval", "deploy", "probe", "canary", "drain", "watch", "rollback"]
    steps = [
        StepView(name=name, state=state, at=at, sentence=long)
        for name, state in zip(names, states, strict=True)
    ]
    view = StatusView(
        environment="staging",
        at=at,
        release=release_at(at, long),
        why="97 of 97 completed",
        need="nothing",
        hosts=(HostView(name="web-1", want="b", have="c", good=True, note=long, seen_at=at),),
        steps=tuple(steps),
        findings={"HEALTHY": 3},
    )
    whole, shown = lines(view), lines(view, 80, height)
    assert len(shown) <= height
    assert (shown == whole) == (len(whole) <= height)
    assert max(len(line) for line in shown) <= 80
    text = "\n".join(shown)
    for needed in ("WATCHING", "97 of 97 completed", "Need", "[running] watch"):
        assert needed in text
    assert ("[done]    drain" in text) == (height > 6)
    if height == 12:
        assert "[armed]   rollback" in text


async def test_a_host_that_is_not_back_is_shown_with_what_runs_there(engine: AsyncEngine) -> None:
    """Each host by itself: a later note about one host keeps those of the others, also after the rollback failed."""
    release = await releases.enter(engine, await watching(engine), Phase.ROLLING_BACK, verdict=Verdict.FAIL)
    away = ReturnNote(
        tries=3,
        revision="b" * 40,
        units="tsh-erp active, tsh-erp-workers inactive",
        operation="r1-back-activate-web-2-9.3 failed",
        sentence="web-2 cannot be reached: no answer",
    )
    await releases.note(engine, release, PhaseNote(returns={"web-2": away}))
    here = ReturnNote(back=True, tries=1, revision="a" * 40)
    await releases.note(engine, release, PhaseNote(returns={"web-1": here}))
    for phase in (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED):
        if phase is Phase.ROLLBACK_FAILED:
            await releases.enter(engine, release, phase, verdict=Verdict.FAIL, sentence="1 of 2 hosts")
        text = " ".join(" ".join(lines(await read(engine, "staging"))).split())
        assert "Back web-1 on aaaaaaa" in text
        assert (
            "web-2 NOT BACK after 3 tries, on bbbbbbb; tsh-erp active, tsh-erp-workers inactive; newest operation "
            "r1-back-activate-web-2-9.3 failed: web-2 cannot be reached: no answer"
        ) in text
    assert "`runbook rollback -e staging` goes on" in text
