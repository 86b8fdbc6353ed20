"""What is said of a host: a restart under way is no fault, and a fault is not called a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from handlers.release.note import HostNote, PhaseNote, ReturnNote
from handlers.release.phase import Phase
from handlers.status.assemble import Facts, assemble
from handlers.status.lines import lines
from handlers.status.view import HostState
from tests.unit.status import snapshots
from tests.unit.status.snapshots import NEW, OLD, after, before, deploying, now, operation, probing, view


def state_of(facts: Facts, host: str = "web-2") -> HostState:
    """What is said of a host."""
    return next(each.state for each in assemble(facts).hosts if each.name == host)


def answered(facts: Facts, **note: Any) -> Facts:
    """The same with another newest answer of web-2."""
    current = facts.records[-1]
    hosts = (current.note.hosts or {}) | {"web-2": HostNote(**{"needed": 2, "seen_at": facts.at} | note)}
    return replace(facts, records=(*facts.records[:-1], replace(current, note=PhaseNote(hosts=hosts))))


def test_a_host_that_was_not_reached_yet_is_unchanged() -> None:
    """Before its switch a host is neither good nor bad."""
    begun = deploying()
    prepared = [each for each in begun.operations if each.host == "web-1" or each.kind == "prepare"]
    assert state_of(replace(begun, operations=tuple(prepared))) is HostState.UNCHANGED


@pytest.mark.parametrize(
    ("note", "state"),
    [
        ({"ok": False, "note": "no answer: connection refused"}, HostState.RESTARTING),
        ({"ok": False, "have": OLD, "note": "revision 41aa07c instead of 9f3c2e1"}, HostState.RESTARTING),
        ({"ok": False, "note": "unit erp activating"}, HostState.RESTARTING),
        ({"ok": False, "have": NEW, "note": "HTTP 503"}, HostState.NOT_READY),
        ({"ok": False, "have": NEW, "note": "no live worker"}, HostState.NOT_READY),
        ({"ok": False, "note": "unit erp failed", "unit_failed": True}, HostState.NOT_OK),
        ({"ok": True, "have": NEW, "in_a_row": 1}, HostState.OK),
    ],
)
@pytest.mark.parametrize("moment", ["restarting", "probing"])
def test_what_can_still_become_good_is_not_called_wrong(
    moment: str, note: dict[str, Any], state: HostState
) -> None:
    """Within the probe's time a missing answer is a restart; only a unit that has failed is wrong at once."""
    facts = answered(snapshots.MOMENTS[moment](), **note)
    assert state_of(facts) is state
    text = "\n".join(lines(assemble(facts)))
    assert ("NOT OK" in text) == (state is HostState.NOT_OK)


def test_an_answer_from_before_the_switch_says_nothing_of_the_new_process() -> None:
    """The note is older than the end of the switch."""
    facts = answered(snapshots.restarting(), ok=True, have=OLD, in_a_row=9, seen_at=after(80))
    assert state_of(facts) is HostState.RESTARTING


def test_a_step_that_failed_is_wrong() -> None:
    """A failed switch is not a restart."""
    begun = deploying()
    failed = operation("web-2", "activate", 83, 2, outcome="failed", last_line="no space left on device")
    assert state_of(replace(begun, operations=(*begun.operations[:-1], failed))) is HostState.NOT_OK


@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.DRAINING, Phase.WATCHING])
def test_after_the_proof_a_bad_answer_is_wrong(phase: Phase) -> None:
    """Where no host is changed, nothing is under way."""
    bad = PhaseNote(hosts={"web-2": HostNote(have=NEW, ok=False, note="HTTP 503", seen_at=after(200))})
    assert state_of(snapshots.facts(phase, (*before(phase), now(phase, bad)), 210)) is HostState.NOT_OK


def test_on_the_way_back_a_good_answer_of_the_bad_revision_is_not_good() -> None:
    """The old note says ok about the revision to leave."""
    back = snapshots.rolling_back()
    hosts = {host.name: host.state for host in assemble(back).hosts}
    assert hosts == {"web-1": HostState.OK, "web-2": HostState.SWITCHING}
    fresh = replace(back, operations=snapshots.DEPLOYED)
    assert state_of(fresh) is HostState.GOING_BACK


def test_a_host_that_is_restarted_on_the_way_back_is_restarting() -> None:
    """Its switch is done, and it has not been proven."""
    back = snapshots.rolling_back()
    switched = operation("web-2", "back-activate", 417.4, 5.0)
    assert state_of(replace(back, operations=(*back.operations[:-1], switched))) is HostState.RESTARTING


def test_a_rollback_that_failed_is_wrong_where_it_failed() -> None:
    """The other host is good."""
    hosts = {host.name: host.state for host in view("rollback_failed").hosts}
    assert hosts == {"web-1": HostState.OK, "web-2": HostState.NOT_OK}


def test_a_probe_that_has_ended_badly_is_wrong() -> None:
    """A held release has no restart under way."""
    facts = answered(probing(), ok=False, note="no answer: timed out")
    ended = replace(facts.records[-1], finished_at=after(140), sentence="not healthy within 30 s")
    held = snapshots.facts(Phase.HELD, (*facts.records[:-1], ended, now(Phase.HELD, since=140)), 150)
    assert state_of(held) is HostState.NOT_OK
    probe = next(step for step in assemble(held).steps if step.name == "probe")
    assert [(host.host, host.steps[0].state.value) for host in probe.hosts] == [
        ("web-1", "done"),
        ("web-2", "failed"),
    ]


def test_a_try_that_is_repeated_does_not_show_what_the_one_before_did() -> None:
    """A new prepare begins anew: the failed switch of the first try is not a failure of the second."""
    back = snapshots.rolling_back()
    first = operation("web-2", "back-activate", 417.4, 2.0, outcome="failed")
    second = operation("web-2", "back-prepare", 421, None)
    tries = replace(back, operations=(*back.operations[:-1], first, second))
    rollback = next(step for step in assemble(tries).steps if step.name == "rollback")
    steps = next(host.steps for host in rollback.hosts if host.host == "web-2")
    assert [(step.step, step.state.value) for step in steps] == [("prepare", "running")]
    assert state_of(tries) is HostState.GOING_BACK


def test_a_host_that_needed_no_change_is_back_without_a_step() -> None:
    """It was never switched: its proof is all there is."""
    back = snapshots.rolling_back()
    returns = {
        "web-2": ReturnNote(
            back=True, tries=1, revision=OLD, sentence="it was back already", seen_at=after(405)
        )
    }
    note = replace(back.records[-1].note, returns=returns)
    records = (*back.records[:-1], replace(back.records[-1], note=note))
    rollback = next(
        step
        for step in assemble(replace(back, records=records, operations=())).steps
        if step.name == "rollback"
    )
    assert [(step.step, step.state.value) for step in rollback.hosts[1].steps] == [("probe", "done")]
