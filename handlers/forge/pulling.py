"""The steps of a pull request. Each looks first, so that a step that was done already is done no second time."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.environment.model import Environment
from handlers.errors import Refused
from handlers.forge import readiness, repository
from handlers.forge.answers import Pull
from handlers.forge.calls import Calls, Unanswered
from handlers.forge.failures import Conflict, Exists, Missing
from handlers.forge.pull_plan import PullPlan, plan_of, planned_in
from handlers.forge.readiness import Standing
from handlers.release.phase import short
from handlers.release.pulled import MergedPull


class HeadMoved(Refused):
    """The branch or the pull request is not at the planned commit any more."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pull request for a commit, if there is one."""

    pull: Pull | None = None
    """Open, or merged with exactly this commit."""
    closed: Pull | None = None
    """The newest that was closed without a merge of this commit."""


async def find(calls: Calls, base: str, commit: str) -> Found:
    """The pull request that merges, or has merged, this commit into *base*. An open one may be at another commit."""
    pulls = [each for each in await repository.pulls_of_branch(calls) if each.base.ref == base]
    merged = next((each for each in pulls if each.merged and each.head.sha == commit), None)
    found = merged or next((each for each in pulls if each.state == "open"), None)
    closed = next(
        (each for each in pulls if each.state != "open" and not each.merged and each.head.sha == commit), None
    )
    return Found(pull=await repository.pull(calls, found.number) if found else None, closed=closed)


def raise_if_moved(pull: Pull, commit: str) -> None:
    """Raise HeadMoved when a pull request would merge, or has merged, what was not planned."""
    if pull.head.sha != commit:
        done = "merged" if pull.merged else "would merge"
        raise HeadMoved(
            f"{pull.head.ref} has moved: pull request {pull.number} {done} {short(pull.head.sha)}, and {short(commit)} "
            "was planned. Nothing is merged; plan the new commit with `runbook pr open`, or release it"
        )


async def make_plan(calls: Calls, environment: Environment, commit: str) -> PullPlan | None:
    """The plan of merging this commit. None where it is on the branch already."""
    base = environment.deploy.branch
    tip = await repository.tip_of(calls, base)
    if not tip:
        raise Refused(f"{calls.settings.repository} has no branch {base}: check deploy.branch")
    try:
        comparison = await repository.compare(calls, tip, commit)
    except Missing as error:
        raise Refused(
            f"{calls.settings.repository} has no commit {short(commit)}: push it, or name another"
        ) from error
    return plan_of(environment, commit, comparison) if comparison.ahead_by else None


async def is_on_branch(calls: Calls, environment: Environment, commit: str) -> bool:
    """Whether the environment's branch contains the commit. A commit that the forge does not know is not there."""
    tip = await repository.tip_of(calls, environment.deploy.branch)
    try:
        return bool(tip) and (await repository.compare(calls, tip, commit)).ahead_by == 0
    except Missing:
        return False


async def ensure_open(calls: Calls, plan: PullPlan, description: str) -> Pull:
    """The open or merged pull request of the plan: opened, or used and described again. Raises HeadMoved."""
    found = await find(calls, plan.base, plan.head)
    if found.pull is None:
        try:
            opened = await repository.create_pull(calls, plan.base, plan.title, description)
            return await _checked(calls, opened.number, plan.head)
        except (Exists, Unanswered):
            # There is one all the same: of a call whose answer was lost, or of another person in this moment.
            found = await find(calls, plan.base, plan.head)
            if found.pull is None:
                raise
    raise_if_moved(found.pull, plan.head)
    if not found.pull.merged and planned_in(found.pull.body) != (plan.head, plan.hash):
        await repository.describe_pull(calls, found.pull.number, plan.title, description)
    return await _checked(calls, found.pull.number, plan.head)


async def _checked(calls: Calls, number: int, commit: str) -> Pull:
    pull = await repository.pull(calls, number)
    raise_if_moved(pull, commit)
    return pull


async def standing(calls: Calls, pull: Pull) -> Standing:
    """How an open pull request stands: workflows, checks, reviews, and the forge's own word."""
    commit, settings = pull.head.sha, calls.settings
    workflows = Standing()
    if settings.workflows:
        workflows = readiness.of_workflows(settings, await repository.workflow_runs(calls, commit), commit)
    checks = readiness.of_checks(
        settings, await repository.check_runs(calls, commit), await repository.statuses(calls, commit)
    )
    reviews = readiness.of_reviews(
        settings, await repository.reviews(calls, pull.number), commit, pull.number
    )
    return readiness.of_pull(pull) + workflows + checks + reviews


async def raise_if_more(calls: Calls, pull: Pull) -> None:
    """Raise Refused when the merge would make other files than those of the head: what nobody has proven.

    The forge has merged it on trial already, and names that commit.
    """
    if pull.merge_commit_sha is None:
        return
    try:
        trial = await repository.tree_of(calls, pull.merge_commit_sha)
    except Missing:
        return  # The merge itself is checked as well.
    if trial != await repository.tree_of(calls, pull.head.sha):
        raise Refused(
            f"{pull.base.ref} has changes that {pull.head.ref} does not contain, so the merge of pull request "
            f"{pull.number} would release files that nobody has tested: merge {pull.base.ref} into {pull.head.ref}, "
            "push, and release the new commit"
        )


async def merge_once(calls: Calls, pull: Pull, plan: PullPlan) -> Pull | None:
    """Merge, if it is still the planned commit, and return it merged. None when no answer came and it is not merged.

    Raises HeadMoved, and Conflict with the forge's reason.
    """
    try:
        await repository.merge_pull(calls, pull.number, plan.head, f"{plan.title} (#{pull.number})")
    except Unanswered:
        now = await _checked(calls, pull.number, plan.head)
        return now if now.merged else None
    except Conflict as error:
        now = await _checked(calls, pull.number, plan.head)
        if now.merged:
            return now
        # The forge's own word is better than the sentence of its refusal.
        why = readiness.of_pull(now)
        raise Conflict("; ".join(why.refusals) or str(error)) from error
    return await _checked(calls, pull.number, plan.head)


async def merged_fact(calls: Calls, pull: Pull) -> MergedPull:
    """What is recorded about a merged pull request. Raises Refused when the forge does not name the merge's commit."""
    if not pull.merged or not pull.merge_commit_sha:
        raise Refused(
            f"{calls.settings.host} does not name the commit of pull request {pull.number}: {pull.html_url}"
        )
    head, commit = pull.head.sha, pull.merge_commit_sha
    same = head == commit or await repository.tree_of(calls, head) == await repository.tree_of(calls, commit)
    reviews = await repository.reviews(calls, pull.number)
    planned = planned_in(pull.body)
    return MergedPull(
        number=pull.number,
        url=pull.html_url,
        head=head,
        commit=commit,
        same_files=same,
        approved_by=readiness.approvers(reviews, head),
        merged_by=pull.merged_by.login if pull.merged_by else "",
        plan=planned[1] if planned and planned[0] == head else "",
    )


async def merged_as(calls: Calls, base: str, commit: str) -> MergedPull | None:
    """The merged pull request whose merge made this commit on *base*. None where there is none."""
    for each in await repository.pulls_of_commit(calls, commit):
        if each.merged and each.base.ref == base and each.merge_commit_sha == commit:
            return await merged_fact(calls, await repository.pull(calls, each.number))
    return None
