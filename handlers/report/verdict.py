"""The verdict of a report, from its checks and hosts: good, not good or not decidable, and what to type next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from handlers.errors import ExitCode
from handlers.measurements.measurement import Measurement, State
from handlers.release.phase import Phase, Release, short

NEEDED = "success_24h"
"""Without it nothing is decided: an empty queue is no success."""
_NAMED = 3


class Answer(StrEnum):
    """What a verification says."""

    GOOD = "good"
    NOT_GOOD = "not good"
    NOT_DECIDABLE = "not decidable"


@dataclass(frozen=True, kw_only=True)
class HostState:
    """What one host answered."""

    name: str
    revision: str | None
    problem: str = ""
    """Why it is not healthy; empty when it is."""
    answered: bool = True


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The verdict of a place at one moment."""

    answer: Answer
    sentence: str
    next: tuple[str, ...]
    """What a person can type, the most useful first, each with a reason after a dash."""

    @property
    def exit_code(self) -> ExitCode:
        """0 when it is good, else 4."""
        return ExitCode.GOOD if self.answer is Answer.GOOD else ExitCode.HELD


def verify(environment: str, checks: Sequence[Measurement], hosts: Sequence[HostState]) -> Verification:
    """The verdict: what is broken makes it not good; what could not be read, or too little, not decidable."""
    broken = [each for each in checks if each.state is State.BROKEN]
    down = [each for each in checks if each.state is State.SOURCE_DOWN]
    sick = [host for host in hosts if host.answered and host.problem]
    silent = [host for host in hosts if not host.answered]
    revisions = {host.revision for host in hosts if host.answered and host.revision}
    # Soon after a deploy the hour and the day are the same window, and say the same.
    bad = list({each.sentence: f"{each.key}: {each.sentence}" for each in reversed(broken)}.values())[::-1]
    bad += [f"host {host.name}: {host.problem}" for host in sick]
    if len(revisions) > 1:
        bad.append(f"the hosts run {len(revisions)} revisions: {', '.join(sorted(map(str, revisions)))}")
    unknown = [f"{each.key}: {each.sentence}" for each in down]
    unknown += [f"host {host.name}: {host.problem}" for host in silent]
    needed = [each for each in checks if each.name == NEEDED]
    if not needed or needed[0].state is State.NO_DATA:
        unknown.append(needed[0].sentence if needed else f"{NEEDED} was not measured")
    steps = tuple(
        dict.fromkeys(_steps(environment, [*broken, *down], bool(sick or silent), len(revisions) > 1))
    )
    if bad:
        more = f" {len(unknown)} more could not be decided." if unknown else ""
        return Verification(answer=Answer.NOT_GOOD, sentence=f"{_list(bad)}.{more}", next=steps)
    if unknown:
        return Verification(answer=Answer.NOT_DECIDABLE, sentence=f"{_list(unknown)}.", next=steps)
    judged = [each for each in checks if each.state is State.GOOD]
    sentence = f"{len(judged)} bars are kept, none is broken; {needed[0].sentence}"
    return Verification(answer=Answer.GOOD, sentence=f"{sentence}.", next=())


def _list(sentences: Sequence[str]) -> str:
    rest = len(sentences) - _NAMED
    return "; ".join(sentences[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _steps(
    environment: str, found: Iterable[Measurement], hosts_are_bad: bool, revisions_differ: bool
) -> Iterable[str]:
    names = {each.name for each in found}
    if names & {
        "success_1h",
        "success_24h",
        "failing_1h",
        "failing_24h",
        "error_rise",
        "dead_letters_1h",
        "dead_letters_24h",
    }:
        yield f"runbook queue show -e {environment} – the dead letters by type and error"
    if names & {"dead_letters_1h", "dead_letters_24h"}:
        yield f"runbook drain -e {environment} – redrive them in growing batches, when their cause is gone"
    if names & {"stuck", "silent_workers", "throughput", "oldest", "queue_depth", "webhook_seconds"}:
        yield f"runbook doctor -e {environment} – stuck events, silent workers, missing indexes"
    if "new_signatures" in names:
        yield f"runbook explain -e {environment} – what the newest release decided, and when"
    if hosts_are_bad or revisions_differ or names & {"load", "memory", "disk"}:
        yield f"runbook check -e {environment} – each host, its units, disk and health answer"
    if revisions_differ:
        yield f"runbook status -e {environment} – whether a release is under way or stopped half-way"
    if "connections" in names or "freshness" in names:
        yield f"runbook doctor -e {environment} – privileges, and what the database lacks"


def next_steps(
    release: Release,
    *,
    need: str,
    left: int,
    left_behind: str,
    quarantined: bool,
    verification: Verification,
    can_sync: bool = False,
) -> list[str]:
    """What a person can type after a release, the most useful first. *need* is what the status view asks for.

    *can_sync*: the environment says how its source is read.
    """
    name, steps = release.environment, []
    if need:
        steps.append(need)
    match release.phase:
        case Phase.ROLLED_BACK | Phase.ROLLBACK_FAILED:
            steps.append(f"runbook explain -e {name} {release.id} – the arithmetic of the decision")
            if left_behind:
                steps.append(f"{left_behind} – the live events that died under the rolled-back revision")
            if can_sync:
                steps.append(f"runbook sync incremental -e {name} – to bring the tables up to date from Zoho")
            if quarantined:
                steps.append(
                    f"runbook lift -e {name} {short(release.to_revision)} --by NAME – only when its fault is understood"
                )
        case Phase.SUCCEEDED if left:
            steps.append(f"runbook drain -e {name} – {left} of the planned dead letters are still there")
        case Phase.HELD:
            steps.append(f"runbook status -e {name} – what the release waits for")
    return list(dict.fromkeys([*steps, *verification.next]))
