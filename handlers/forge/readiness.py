"""Whether a pull request may be merged: its checks, its reviews, and the forge's own word. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from handlers.environment.forge_settings import Forge
from handlers.forge.answers import CheckRun, CommitStatus, Pull, Review, WorkflowRun

_GOOD = frozenset({"success", "neutral", "skipped"})
_REVIEWERS = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})
"""Whose reviews count: on a public repository anybody may approve."""
_NAMED_MAX = 4


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a commit or a pull request stands."""

    refusals: tuple[str, ...] = ()
    """What somebody has to change first: no waiting helps."""
    absent: tuple[str, ...] = ()
    """What has been named in the environment file, and has not appeared yet."""
    running: tuple[str, ...] = ()
    """What goes on by itself."""
    people: tuple[str, ...] = ()
    """What waits for people."""
    done: str = ""
    """What is good already."""

    @property
    def good(self) -> bool:
        """Whether nothing is missing."""
        return not (self.refusals or self.absent or self.running or self.people)

    @property
    def sentence(self) -> str:
        """For people: what is missing first."""
        return "; ".join([*self.refusals, *self.absent, *self.running, *self.people]) or self.done

    def __add__(self, other: Standing) -> Standing:
        return Standing(
            refusals=self.refusals + other.refusals,
            absent=self.absent + other.absent,
            running=self.running + other.running,
            people=self.people + other.people,
            done=", ".join(filter(None, [self.done, other.done])),
        )


def of_workflows(settings: Forge, runs: Sequence[WorkflowRun], commit: str) -> Standing:
    """The named workflows for a commit: each needs a success, and no newest run of any event may be bad."""
    found = Standing()
    for wanted in settings.workflows:
        newest = _newest(run for run in runs if run.head_sha == commit and wanted in (run.name, run.file))
        found += _of_workflow(wanted, newest, commit)
    done = len(settings.workflows) - len(found.refusals) - len(found.absent) - len(found.running)
    return replace(found, done=_count(max(0, done), "workflow") if settings.workflows else "")


def _of_workflow(wanted: str, newest: Sequence[WorkflowRun], commit: str) -> Standing:
    if not newest:
        return Standing(absent=(f"no run of workflow {wanted} for {commit[:7]} has appeared yet",))
    ended = [run for run in newest if run.status == "completed"]
    bad = [run for run in ended if run.conclusion not in _GOOD]
    if not bad and len(ended) == len(newest) and all(run.conclusion != "success" for run in ended):
        # Skipped or neutral: it has done nothing.
        bad = ended
    running = [run for run in newest if run.status != "completed"]
    return Standing(
        refusals=tuple(
            f"workflow {run.label} ended as {_words(run.conclusion)} for {commit[:7]}: {run.html_url}"
            for run in bad
        ),
        running=tuple(f"workflow {run.label} is {_words(run.status)}" for run in running),
    )


def _newest(runs: Iterable[WorkflowRun]) -> list[WorkflowRun]:
    """The newest run of each workflow and event: an older one that failed was run again."""
    newest: dict[tuple[str, str], WorkflowRun] = {}
    for run in runs:
        key = (run.path or run.label, run.event)
        if key not in newest or (run.run_number, run.id) > (newest[key].run_number, newest[key].id):
            newest[key] = run
    return [newest[key] for key in sorted(newest)]


def of_checks(settings: Forge, checks: Sequence[CheckRun], statuses: Sequence[CommitStatus]) -> Standing:
    """All checks and statuses of a commit must be good, and those that are named must exist."""
    names = {check.name for check in checks} | {status.context for status in statuses}
    failed = [
        f"check {check.name} ended as {_words(check.conclusion)}" + _link(check.html_url)
        for check in checks
        if check.status == "completed" and check.conclusion not in _GOOD
    ]
    failed += [
        f"status {status.context} is {status.state}" + _link(status.target_url)
        for status in statuses
        if status.state in ("failure", "error")
    ]
    running = [
        f"check {check.name} is {_words(check.status)}" for check in checks if check.status != "completed"
    ]
    running += [f"status {status.context} is pending" for status in statuses if status.state == "pending"]
    absent = [f"check {name} has not appeared yet" for name in settings.checks if name not in names]
    return Standing(
        refusals=_some(failed),
        absent=tuple(absent),
        running=_some(running),
        done=_count(len(names) - len(failed) - len(running), "check"),
    )


def of_reviews(settings: Forge, reviews: Sequence[Review], commit: str, number: int) -> Standing:
    """The last word of each reviewer. An approval counts for the commit that was looked at, and for no later one."""
    last: dict[str, Review] = {}
    for review in reviews:
        counts = review.state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")
        if counts and review.user is not None and review.author_association in _REVIEWERS:
            last[review.user.login] = review
    rejecting = sorted(name for name, review in last.items() if review.state == "CHANGES_REQUESTED")
    approving = approvers(reviews, commit)
    if rejecting:
        sentence = f"{' and '.join(rejecting)} requested changes of pull request {number}"
        return Standing(refusals=(f"{sentence}: answer the review, or have it dismissed",))
    missing = settings.approvals - len(approving)
    if missing > 0:
        older = len([review for review in last.values() if review.state == "APPROVED"]) - len(approving)
        hint = f" ({_count(older, 'approval')} of an older commit)" if older > 0 else ""
        return Standing(
            people=(f"pull request {number} needs {_count(missing, 'more approval')} of {commit[:7]}{hint}",)
        )
    return Standing(done=f"approved by {', '.join(approving)}" if approving else "")


def approvers(reviews: Sequence[Review], commit: str) -> tuple[str, ...]:
    """Who has approved exactly this commit, and has not taken it back."""
    last: dict[str, Review] = {}
    for review in reviews:
        if (
            review.user is not None
            and review.author_association in _REVIEWERS
            and review.state != "COMMENTED"
        ):
            last[review.user.login] = review
    return tuple(
        sorted(name for name, each in last.items() if each.state == "APPROVED" and each.commit_id == commit)
    )


def of_pull(pull: Pull) -> Standing:
    """What the forge itself says about the merge."""
    about, base, head = f"pull request {pull.number}", pull.base.ref, pull.head.ref
    refusal = running = person = ""
    if pull.state != "open":
        refusal = f"{about} was closed without a merge: reopen it, or open a new one"
    elif pull.draft:
        refusal = f"{about} is a draft: mark it as ready for review"
    elif pull.mergeable is False or pull.mergeable_state == "dirty":
        refusal = (
            f"{about} has conflicts with {base}: merge {base} into {head}, push, and release the new commit"
        )
    elif pull.mergeable is None:
        running = f"the forge computes whether {about} can be merged"
    elif pull.mergeable_state == "blocked":
        person = f"a rule of {base} blocks {about}: {pull.html_url} says which"
    elif pull.mergeable_state == "behind":
        refusal = f"{head} is behind {base}, and a rule asks for the newest: merge it in, and release the new commit"
    return Standing(
        refusals=(refusal,) if refusal else (),
        running=(running,) if running else (),
        people=(person,) if person else (),
    )


def _some(sentences: list[str]) -> tuple[str, ...]:
    more = len(sentences) - _NAMED_MAX
    return tuple(sentences[:_NAMED_MAX]) + ((f"and {more} more",) if more > 0 else ())


def _link(address: str | None) -> str:
    return f": {address}" if address else ""


def _words(state: str | None) -> str:
    return (state or "unknown").replace("_", " ")


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
