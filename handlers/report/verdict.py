"""The verdict of a report, from its checks and hosts: good, not good or not decidable, and what to type next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from handlers.environment.advice import addressed
from handlers.environment.load import env_option
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
    steps = steps_for(environment, [*broken, *down], bool(sick or silent), len(revisions) > 1)
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


_OF_EVENTS = {
    "success_1h",
    "success_24h",
    "failing_1h",
    "failing_24h",
    "error_rise",
    "dead_letters_1h",
    "dead_letters_24h",
}
_OF_WORKERS = {"stuck", "silent_workers", "throughput", "oldest", "queue_depth", "webhook_seconds"}
_OF_DATABASE = {"connections", "freshness"}


def steps_for(
    environment: str,
    found: Iterable[Measurement],
    hosts_are_bad: bool = False,
    revisions_differ: bool = False,
) -> tuple[str, ...]:
    """What a person can type when these checks are broken or could not be read, each with a reason after a dash."""
    return tuple(dict.fromkeys(_steps(environment, found, hosts_are_bad, revisions_differ)))


def _steps(
    environment: str, found: Iterable[Measurement], hosts_are_bad: bool, revisions_differ: bool
) -> Iterable[str]:
    names, env = {each.name for each in found}, env_option(environment)
    if names & _OF_EVENTS:
        yield f"runbook queue show {env} – the dead letters by type and error"
    if names & {"dead_letters_1h", "dead_letters_24h"}:
        yield f"runbook drain {env} – redrive them in growing batches, when their cause is gone"
    if names & (_OF_WORKERS | _OF_DATABASE):
        yield f"runbook doctor {env} – stuck events, silent workers, and what the database lacks"
    if "new_signatures" in names:
        yield f"runbook logs {env} – the lines around the new errors"
    if hosts_are_bad or revisions_differ or names & {"load", "memory", "disk"}:
        yield f"runbook check {env} – each host, its units, disk and health answer"
    if revisions_differ:
        yield f"runbook status {env} – whether a release is under way or stopped half-way"


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
    env, steps = env_option(release.environment), []
    if need:
        steps.append(addressed(need, release.environment))
    match release.phase:
        case Phase.ROLLED_BACK | Phase.ROLLBACK_FAILED:
            steps.append(f"runbook explain {env} {release.id} – the arithmetic of the decision")
            if left_behind:
                steps.append(f"{left_behind} – the live events that died under the rolled-back revision")
            if can_sync:
                steps.append(f"runbook sync incremental {env} – to bring the tables up to date from Zoho")
            if quarantined:
                steps.append(
                    f"runbook unblock {env} {short(release.to_revision)} --by NAME – only when its fault is understood"
                )
        case Phase.SUCCEEDED if left:
            steps.append(f"runbook drain {env} – {left} of the planned dead letters are still there")
        case Phase.HELD:
            steps.append(f"runbook status {env} – what the release waits for")
    # A command is advised once, with the words of the release.
    advised = {_command(step) for step in steps}
    return [*steps, *(step for step in verification.next if _command(step) not in advised)]


def _command(step: str) -> str:
    """The command and its subcommand, without options."""
    return step.split(" -", 1)[0]
