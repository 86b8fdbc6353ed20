"""One constructed moment of a release in each phase, as it is read from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from handlers.gate.values import Finding, Thresholds
from handlers.release.due import Care
from handlers.release.host_steps import HostSteps
from handlers.release.ledger.dead_letters import Batch
from handlers.release.ledger.records import Stretch
from handlers.release.ledger.releases import PhaseRecord
from handlers.release.lock import Holder
from handlers.release.note import ApprovalNote, ArmedNote, HostNote, NextLook, PhaseNote, ReturnNote
from handlers.release.phase import FINISHED, LIVE, Phase, Release, Verdict
from handlers.release.planned import EVERYTHING, Plan, PlannedHost
from handlers.release.usual import Span, Usual, UsualSteps
from handlers.status.assemble import Facts, assemble
from handlers.status.host_tree import Operation
from handlers.status.view import ApprovalView, StartView, StatusView

BEGIN = datetime(2026, 11, 28, 14, 2, tzinfo=UTC)
OLD, NEW = "41aa07c" + "a" * 33, "9f3c2e1" + "b" * 33
STARTS = {
    Phase.PLANNED: 0,
    Phase.APPROVED: 60,
    Phase.DEPLOYING: 62,
    Phase.PROBING: 100,
    Phase.CANARY: 110,
    Phase.DRAINING: 112,
    Phase.WATCHING: 150,
}
"""Real seconds after BEGIN at which each phase began."""
SAID = {
    Phase.PLANNED: "7be1c04d2a55: 12 checks passed, 58 dead letters to drain",
    Phase.APPROVED: 'ops-b, plan 7be1.., "fix tested on staging"; lock taken, token 118',
    Phase.DEPLOYING: "2 of 2 hosts are on 9f3c2e1",
    Phase.PROBING: "2 of 2 hosts gave 2 good answers in a row on 9f3c2e1",
    Phase.CANARY: "Product 2646610000000113826 completed, 1.8 s",
    Phase.DRAINING: "57 of 57 completed (100 %); 3 batches",
}


def after(seconds: float) -> datetime:
    """A time so many real seconds after the plan."""
    return BEGIN + timedelta(seconds=seconds)


def span(seconds: float) -> Span:
    """A duration that was always the same."""
    return Span(shortest=seconds, usual=seconds, longest=seconds)


def plan(*, usual: bool = True, speed: float = 1) -> Plan:
    """Two hosts, web-1 first."""
    places = {"prepare": 1, "stop": 2, "start": 5, "probe": 6}
    phases = {
        Phase.DEPLOYING: 38 * speed,
        Phase.PROBING: 9 * speed,
        Phase.CANARY: 2 * speed,
        Phase.DRAINING: 36 * speed,
        Phase.WATCHING: 1800,
    }
    steps = {"prepare": 6.0, "stop": 2.5, "switch": 7.0, "probe": 4.0, "start": 3.0}
    return Plan(
        environment="production",
        requested="main",
        from_revision=OLD,
        to_revision=NEW,
        scope=EVERYTHING,
        commits=("> 9f3c2e1 Kim: Leave the queue to the sync core",),
        hosts=tuple(
            PlannedHost(name=name, current=OLD, rollback_present=True) for name in ("web-1", "web-2")
        ),
        events=(),
        set_aside={},
        queue={"completed": 1542, "dead_letter": 58},
        failed={},
        checks=(),
        thresholds=Thresholds(),
        baseline=None,
        seconds_expected=1900,
        host_steps=(
            HostSteps(host="web-1", places={**places, "switch": 3}),
            HostSteps(host="web-2", places={**places, "switch": 4}),
        ),
        usual=Usual(
            releases=3,
            total=span(sum(phases.values())),
            phases={phase.value: span(seconds) for phase, seconds in phases.items()},
        )
        if usual
        else None,
        usual_steps=UsualSteps(
            steps={
                **{f"deploying/{step}": span(seconds) for step, seconds in steps.items()},
                "probing/probe": span(9.0),
                **{f"rolling_back/{step}": span(seconds) for step, seconds in steps.items()},
            },
            rollback=span(31.0),
        )
        if usual
        else UsualSteps(),
    )


def operation(
    host: str, kind: str, began: float, seconds: float | None, *, outcome: str = "done", last_line: str = ""
) -> Operation:
    """An operation; without *seconds* it runs."""
    return Operation(
        phase=Phase.ROLLING_BACK if kind.startswith("back-") else Phase.DEPLOYING,
        host=host,
        kind=kind,
        outcome=None if seconds is None else outcome,
        started_at=after(began),
        finished_at=None if seconds is None else after(began + seconds),
        last_line=last_line,
    )


def healthy(revision: str, at: float, seconds: float | None = None) -> HostNote:
    """A host that gives good answers."""
    proof = {"in_a_row": 2, "needed": 2, "seconds": seconds} if seconds is not None else {}
    return HostNote(have=revision, ok=True, seen_at=after(at), **proof)


def passed(phase: Phase, until: float, note: PhaseNote | None = None) -> PhaseRecord:
    """A phase that has passed."""
    return PhaseRecord(
        id=STARTS[phase],
        phase=phase,
        started_at=after(STARTS[phase]),
        finished_at=after(until),
        verdict=Verdict.PASS,
        sentence=SAID[phase],
        note=note or PhaseNote(),
    )


def before(phase: Phase) -> tuple[PhaseRecord, ...]:
    """The phases before this one, each of which has passed."""
    known = list(STARTS)
    both = {"web-1": healthy(NEW, 108, 6.2), "web-2": healthy(NEW, 109, 8.0)}
    switched = {"web-1": healthy(NEW, 82.5, 4.1), "web-2": healthy(NEW, 94.0, 4.0)}
    notes = {
        Phase.DEPLOYING: PhaseNote(hosts=switched),
        Phase.PROBING: PhaseNote(
            armed=ArmedNote(ok=True, sentence="present on 2 of 2 hosts", at=after(1)), hosts=both
        ),
    }
    return tuple(
        passed(each, STARTS[known[number + 1]], notes.get(each))
        for number, each in enumerate(known[: known.index(phase)])
    )


def now(phase: Phase, note: PhaseNote | None = None, *, since: float | None = None) -> PhaseRecord:
    """The phase that the release is in."""
    began = STARTS[phase] if since is None else since
    return PhaseRecord(
        id=int(began),
        phase=phase,
        started_at=after(began),
        finished_at=None,
        verdict=None,
        sentence="",
        note=note or PhaseNote(),
    )


def facts(
    phase: Phase, records: tuple[PhaseRecord, ...], at: float, *, reason: str = "", speed: float = 1
) -> Facts:
    """A release in *phase*, *at* seconds after its plan."""
    release = Release(
        id="2026-11-28.3",
        environment="production",
        from_revision=OLD,
        to_revision=NEW,
        requested_by="ops-a",
        phase=phase,
        resume_phase=Phase.WATCHING if phase is Phase.HELD else None,
        token=118 if phase not in (Phase.PLANNED, Phase.APPROVED) else None,
        speed=speed,
        reason=reason,
        created_at=BEGIN,
        finished_at=after(at) if phase in FINISHED else None,
    )
    runs = phase in LIVE - {Phase.HELD}
    holder = Holder(
        environment="production", release_id=release.id, name="ops-a:4711", token=118, taken_at=after(61),
        heartbeat_at=after(at - 4), expires_at=after(at + 56), silent_seconds=4.0, has_ended=False, is_ours=False,
        alive=True,
    )  # fmt: skip
    return Facts(
        release=release,
        at=after(at),
        holder=holder if runs else None,
        records=records,
        plan=plan(speed=speed),
        care=Care(release=release, carried=True if runs else None),
        operations=DEPLOYED if phase not in (Phase.PLANNED, Phase.APPROVED) else (),
    )


DEPLOYED = tuple(
    operation(host, kind, began, seconds)
    for host, times in {
        "web-1": ((62, 6.1), (68.4, 2.2), (71, 7.4), (95, 3.1)),
        "web-2": ((62, 5.8), (68.4, 2.6), (83, 6.9), (95, 3.4)),
    }.items()
    for kind, (began, seconds) in zip(
        ("prepare", "stop-workers", "activate", "start-workers"), times, strict=True
    )
)


def planned() -> Facts:
    """A plan that waits for its second approval."""
    note = PhaseNote(approval=ApprovalNote(needed=2, until=after(1800), starts=True))
    waiting = facts(Phase.PLANNED, (now(Phase.PLANNED, note),), 95)
    approval = ApprovalView(
        needed=2, given=(), until=after(1800), starts=True, progress="0 of 2 approvals",
        whom="anyone but ops-a",
        command="runbook approve 2026-11-28.3 -e production --plan 7be1c04d2a55 --reason REASON",
    )  # fmt: skip
    care = replace(waiting.care, sentence="it waits for approval")
    return replace(waiting, start=StartView(approval=approval), care=care)


def approved() -> Facts:
    """Approved, and about to be started."""
    note = PhaseNote(approval=ApprovalNote(needed=1, until=after(1860), starts=True))
    begun = facts(Phase.APPROVED, (*before(Phase.APPROVED), now(Phase.APPROVED, note)), 65)
    return replace(
        begun, care=replace(begun.care, sentence="`runbook resume --due` starts it within a minute")
    )


def deploying() -> Facts:
    """web-1 is proven, web-2 is being switched."""
    note = PhaseNote(hosts={"web-1": healthy(NEW, 82.5, 4.1)})
    done = [each for each in DEPLOYED if each.kind in ("prepare", "stop-workers") or each.host == "web-1"]
    running = [each for each in done if each.kind != "start-workers"]
    begun = facts(Phase.DEPLOYING, (*before(Phase.DEPLOYING), now(Phase.DEPLOYING, note)), 88)
    return replace(begun, operations=(*running, operation("web-2", "activate", 83, None)))


def restarting() -> Facts:
    """The same a little later: the new process of web-2 does not answer yet."""
    begun = deploying()
    hosts = {
        "web-1": healthy(NEW, 82.5, 4.1),
        "web-2": HostNote(
            have=None,
            ok=False,
            note="no answer: connection refused",
            seen_at=after(92),
            needed=2,
            seconds=1.8,
        ),
    }
    records = (*before(Phase.DEPLOYING), now(Phase.DEPLOYING, PhaseNote(hosts=hosts)))
    operations = (*begun.operations[:-1], operation("web-2", "activate", 83, 6.9))
    return replace(begun, at=after(93), records=records, operations=operations)


def probing() -> Facts:
    """web-1 is proven, web-2 has given one good answer."""
    hosts = {
        "web-1": healthy(NEW, 107, 6.2),
        "web-2": HostNote(have=NEW, ok=True, in_a_row=1, needed=2, seconds=6.2, seen_at=after(107)),
    }
    return facts(Phase.PROBING, (*before(Phase.PROBING), now(Phase.PROBING, PhaseNote(hosts=hosts))), 108)


def batch(number: int, size: int, began: float, settled: float | None) -> Batch:
    """A batch of the drain; number 0 is the canary."""
    good = None if settled is None else size
    return Batch(
        number=number, size=size, started_at=after(began), settled_at=None if settled is None else after(settled),
        completed=good, failed=None if settled is None else 0, open=None if settled is None else 0,
        finding=None, sentence="",
    )  # fmt: skip


def canary() -> Facts:
    """The event of the canary has not settled."""
    begun = facts(Phase.CANARY, (*before(Phase.CANARY), now(Phase.CANARY)), 111)
    return replace(begun, batches=(batch(0, 1, 110.2, None),), events_planned=58)


def draining() -> Facts:
    """The third batch is out."""
    note = PhaseNote(looked="25 of 25 completed (100 %)")
    begun = facts(Phase.DRAINING, (*before(Phase.DRAINING), now(Phase.DRAINING, note)), 131)
    batches = (
        batch(0, 1, 110.2, 112),
        batch(1, 5, 113, 117),
        batch(2, 20, 118, 125),
        batch(3, 32, 126, None),
    )
    return replace(begun, batches=batches, events_planned=58, events_settled=26)


def watched(phase: Phase, minute: float, speed: float = 1) -> PhaseNote:
    """The progress of a watch."""
    at = STARTS[phase] + minute * 60 / speed
    return PhaseNote(
        window_seconds=1800,
        watched_seconds=minute * 60,
        watched_at=after(at),
        looked="97 of 97 records completed",
        next=NextLook(what="next look", at=after(at + 60 / speed)),
    )


DRAINED = (batch(0, 1, 110.2, 112), batch(1, 5, 113, 117), batch(2, 20, 118, 125), batch(3, 32, 126, 148))


def watching(speed: float = 1) -> Facts:
    """The watch in its 25th minute."""
    at = STARTS[Phase.WATCHING] + (25 * 60 + 19) / speed
    note = watched(Phase.WATCHING, 25, speed)
    begun = facts(Phase.WATCHING, (*before(Phase.WATCHING), now(Phase.WATCHING, note)), at, speed=speed)
    judged = Stretch(
        phase=Phase.WATCHING, rule="watch", finding=Finding.HEALTHY, taken_at=after(160), until=after(at - 1),
        number=27, sentence="97 of 97 completed (100 %); the threshold is 95 %",
    )  # fmt: skip
    return replace(begun, judged=(judged,), batches=DRAINED, events_planned=58, events_settled=58)


def rehearsed() -> Facts:
    """The same in a rehearsal: sixty runbook seconds pass in one real second."""
    return watching(speed=60)


def ended(phase: Phase, at: float, records: tuple[PhaseRecord, ...], sentence: str) -> Facts:
    """A release that has ended, or that a person has to decide about."""
    last = now(phase, since=at)
    if phase in FINISHED:
        last = replace(last, finished_at=None)
    return replace(
        facts(phase, (*records, last), at + 20, reason=sentence),
        batches=DRAINED,
        events_planned=58,
        events_settled=58,
    )


def failed_watch(verdict: Verdict = Verdict.FAIL) -> PhaseRecord:
    """A watch that a breach has ended."""
    return replace(
        passed(Phase.DRAINING, 0),
        phase=Phase.WATCHING,
        started_at=after(150),
        finished_at=after(400),
        verdict=verdict,
        sentence="41 of 60 completed (68 %); 80 % or worse is certain",
        note=watched(Phase.WATCHING, 4),
    )


def held() -> Facts:
    """Held in the watch."""
    records = (*before(Phase.WATCHING), failed_watch(Verdict.INCONCLUSIVE))
    return ended(Phase.HELD, 400, records, "the database did not answer for 10 min")


def rolling_back() -> Facts:
    """web-1 is proven to be back, web-2 is being switched."""
    hosts = {"web-1": HostNote(have=OLD, ok=True, seen_at=after(424))}
    returns = {
        "web-1": ReturnNote(
            back=True, tries=1, revision=OLD, sentence="healthy on 41aa07c", seen_at=after(424)
        )
    }
    record = now(Phase.ROLLING_BACK, PhaseNote(hosts=hosts, returns=returns), since=400)
    records = (*before(Phase.WATCHING), failed_watch(), record)
    begun = facts(Phase.ROLLING_BACK, records, 426, reason=failed_watch().sentence)
    back = (
        operation("web-1", "back-prepare", 401, 0.9),
        operation("web-1", "back-stop-workers", 402, 2.1),
        operation("web-1", "back-activate", 404.4, 8.0),
        operation("web-1", "back-start-workers", 412.6, 3.2),
        operation("web-2", "back-prepare", 401, 14.0),
        operation("web-2", "back-stop-workers", 415.2, 2.0),
        operation("web-2", "back-activate", 417.4, None),
    )
    return replace(
        begun, operations=(*DEPLOYED, *back), batches=DRAINED, events_planned=58, events_settled=58
    )


def rollback_record(verdict: Verdict, sentence: str, returns: dict[str, ReturnNote]) -> PhaseRecord:
    """A rollback that has ended."""
    hosts = {
        name: HostNote(
            have=note.revision, ok=note.back, note="" if note.back else note.sentence, seen_at=after(430)
        )
        for name, note in returns.items()
    }
    return PhaseRecord(
        id=400, phase=Phase.ROLLING_BACK, started_at=after(400), finished_at=after(433), verdict=verdict,
        sentence=sentence, note=PhaseNote(hosts=hosts, returns=returns),
    )  # fmt: skip


def rolled_back() -> Facts:
    """Both hosts are back."""
    back = ReturnNote(back=True, tries=1, revision=OLD, sentence="healthy on 41aa07c", seen_at=after(430))
    sentence = "back on 41aa07c: 2 of 2 hosts are healthy; because 41 of 60 completed (68 %)"
    record = rollback_record(Verdict.PASS, sentence, {"web-1": back, "web-2": back})
    return ended(Phase.ROLLED_BACK, 433, (*before(Phase.WATCHING), failed_watch(), record), sentence)


def rollback_failed() -> Facts:
    """The switch of web-2 has failed."""
    back = ReturnNote(back=True, tries=1, revision=OLD, sentence="healthy on 41aa07c", seen_at=after(430))
    away = ReturnNote(
        tries=3, revision=NEW, units="erp active, erp-workers inactive", sentence="no space left on device",
        operation="back-activate-web-2 failed", seen_at=after(430),
    )  # fmt: skip
    record = rollback_record(Verdict.FAIL, "1 of 2 hosts are back on 41aa07c", {"web-1": back, "web-2": away})
    failed = ended(
        Phase.ROLLBACK_FAILED, 433, (*before(Phase.WATCHING), failed_watch(), record), record.sentence
    )
    back_2 = operation(
        "web-2", "back-activate", 417.4, 3.0, outcome="failed", last_line="ln: no space left on device"
    )
    return replace(failed, operations=(*DEPLOYED, operation("web-2", "back-prepare", 401, 2), back_2))


def refused() -> Facts:
    """A host refused the first change."""
    why = "web-2: no space left; nothing that runs has changed"
    failure = replace(passed(Phase.DEPLOYING, 66), verdict=Verdict.FAIL, sentence=why)
    refusal = ended(Phase.REFUSED, 66, (*before(Phase.DEPLOYING), failure), failure.sentence)
    done = (
        operation("web-1", "prepare", 62, 3.0),
        operation("web-2", "prepare", 62, 3.5, outcome="failed", last_line="fatal: no space left on device"),
    )
    return replace(refusal, operations=done, batches=(), events_planned=58, events_settled=0)


def aborted() -> Facts:
    """A person ended it before the first change."""
    approval = replace(passed(Phase.APPROVED, 70), verdict=None, sentence="aborted by ops-a: not tonight")
    stopped = ended(Phase.ABORTED, 70, (*before(Phase.APPROVED), approval), approval.sentence)
    return replace(stopped, operations=(), batches=(), events_planned=58, events_settled=0)


def succeeded() -> Facts:
    """The watch has passed."""
    watch = replace(
        failed_watch(Verdict.PASS), finished_at=after(1950), sentence="watched 30 min: 97.9 % of 96 completed"
    )
    return ended(Phase.SUCCEEDED, 1950, (*before(Phase.WATCHING), watch), watch.sentence)


MOMENTS: dict[str, Callable[[], Facts]] = {
    made.__name__: made
    for made in (
        planned, approved, deploying, restarting, probing, canary, draining, watching, rehearsed, held,
        rolling_back, rolled_back, rollback_failed, refused, aborted, succeeded,
    )
}  # fmt: skip
"""A moment of each phase, and of what a view must not mistake."""


def view(moment: str) -> StatusView:
    """The view of a moment."""
    return assemble(MOMENTS[moment]())
