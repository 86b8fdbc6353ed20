"""What a release waits for: never nothing while it runs, and with the time since when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.release.due import Care
from handlers.release.note import NextLook, PhaseNote
from handlers.release.phase import FINISHED, Phase
from handlers.status.assemble import Facts, assemble
from tests.unit.status import snapshots
from tests.unit.status.snapshots import MOMENTS, after, batch, before, now


def waits(facts: Facts) -> list[tuple[str, float | None]]:
    """What is waited for, and for how many seconds."""
    return [(wait.what, wait.seconds) for wait in assemble(facts).waits]


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_unfinished_release_always_waits_for_something(moment: str) -> None:
    """With the time since when; a release that has ended waits for nothing, unless a person has to act."""
    facts = MOMENTS[moment]()
    found = assemble(facts).waits
    assert bool(found) == (facts.release.phase not in FINISHED - {Phase.ROLLBACK_FAILED})
    assert all(wait.since is not None and wait.seconds is not None for wait in found)


@pytest.mark.parametrize(
    "phase", [Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING]
)
def test_a_phase_that_has_just_begun_is_not_silent(phase: Phase) -> None:
    """Before its first note, and before its first step."""
    facts = snapshots.facts(phase, (*before(phase), now(phase)), snapshots.STARTS[phase] + 3)
    facts = replace(facts, operations=())
    [what, *_] = waits(facts)
    assert what[0]
    assert what[1] == 3.0


def test_between_two_steps_the_view_says_which_one_comes() -> None:
    """The switch of web-1 has ended, and its probe has not begun to answer."""
    begun = snapshots.deploying()
    stopped = [each for each in begun.operations if each.kind in ("prepare", "stop-workers")]
    assert waits(replace(begun, operations=tuple(stopped), at=after(72))) == [("switch to begin", 1.0)]


def test_when_every_host_is_done_the_conclusion_is_waited_for() -> None:
    """Not a step that is over."""
    back = snapshots.rolling_back()
    note = back.records[-1].note
    returns = {
        name: replace((note.returns or {})["web-1"], seen_at=after(425)) for name in ("web-1", "web-2")
    }
    records = (*back.records[:-1], replace(back.records[-1], note=replace(note, returns=returns)))
    operations = (*back.operations[:-1], snapshots.operation("web-2", "back-activate", 417.4, 4.0))
    assert waits(replace(back, records=records, operations=operations)) == [
        ("a look at all hosts together, and the conclusion", 1.0)
    ]


def test_hosts_in_the_same_step_are_waited_for_together() -> None:
    """With the longest time, and counted when there are many."""
    begun = snapshots.deploying()
    running = [snapshots.operation(f"web-{number}", "prepare", 62 + number, None) for number in range(1, 6)]
    assert waits(replace(begun, operations=tuple(running[:2]))) == [("prepare of web-1, web-2", 25.0)]
    assert waits(replace(begun, operations=tuple(running))) == [("prepare of 5 hosts", 25.0)]


def test_a_batch_that_is_out_is_waited_for_and_else_the_next_one() -> None:
    """Since the batch went out, or since the last one has settled."""
    out = snapshots.draining()
    assert waits(out) == [("batch 3 to settle: 32 events", 5.0)]
    between = replace(out, batches=(batch(0, 1, 110.2, 112), batch(1, 5, 113, 117)))
    assert waits(between) == [("the next batch", 14.0)]
    canary = snapshots.canary()
    assert waits(canary) == [("the canary to settle: 1 event", 0.8)]
    assert waits(replace(canary, batches=())) == [("the canary's event", 1.0)]
    settled = replace(canary, batches=(batch(0, 1, 110.2, 110.6),))
    assert waits(settled) == [("the row of the canary to be read", 0.4)]


def test_an_upstream_that_is_away_is_what_is_waited_for() -> None:
    """The pause says why; its next question is in the header."""
    note = PhaseNote(
        looked="paused: the upstream is away: HTTP 502",
        next=NextLook(what="upstream asked again", at=after(140)),
    )
    paused = snapshots.facts(Phase.DRAINING, (*before(Phase.DRAINING), now(Phase.DRAINING, note)), 131)
    assert waits(paused) == [("paused: the upstream is away: HTTP 502", 19.0)]


def test_a_look_that_is_overdue_is_named() -> None:
    """A controller that looks late does not hide behind a look that should have come."""
    watched = snapshots.watching()
    assert waits(watched) == [("the next look at live traffic", 19.0)]
    late = replace(watched, at=watched.at + timedelta(seconds=55))
    assert waits(late) == [("the look that is due", 14.0)]


def test_a_release_that_nobody_runs_waits_for_a_controller() -> None:
    """Since its last sign; not for the step that it did."""
    begun = snapshots.deploying()
    care = Care(release=begun.release, carried=False, since=after(85), sentence="nobody runs it")
    view = assemble(replace(begun, care=care, at=after(145)))
    assert [(wait.what, wait.seconds) for wait in view.waits] == [("a controller: nobody runs it", 60.0)]
    assert view.phase_seconds == 23.0


def test_durations_of_a_rehearsal_are_real_seconds() -> None:
    """Only the progress of the watch is runbook time."""
    view = assemble(snapshots.rehearsed())
    assert (round(view.running_seconds or 0), view.phase_seconds) == (25 * 60 + 19, 25.3)
    watch = next(step for step in view.steps if step.name == "watch")
    assert (watch.seconds, watch.usual_seconds) == (25.3, 30.0)
    deploy = next(step for step in view.steps if step.name == "deploy")
    assert (deploy.seconds, deploy.usual_seconds) == (38.0, 38.0)


def test_a_phase_that_was_entered_twice_counts_both_stays() -> None:
    """As the usual duration does."""
    first = replace(now(Phase.DEPLOYING), finished_at=after(72))
    held = replace(now(Phase.HELD, since=72), finished_at=after(672))
    again = now(Phase.DEPLOYING, since=672)
    view = assemble(snapshots.facts(Phase.DEPLOYING, (*before(Phase.DEPLOYING), first, held, again), 680))
    deploy = next(step for step in view.steps if step.name == "deploy")
    assert (deploy.seconds, view.phase_seconds, view.total_seconds) == (18.0, 8.0, 18.0)
