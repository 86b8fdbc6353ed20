"""A commit gets onto the branch: push, watch the workflows, open the pull request, wait for people, merge.

No lock is held meanwhile. Each step looks first what is there, so that after a kill the same call goes on.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from handlers.environment.model import Environment
from handlers.errors import Refused, TryAgain, WaitsForPeople
from handlers.forge import local_git, pulling, readiness, repository
from handlers.forge.answers import Pull
from handlers.forge.calls import TOLD_SECONDS, TRIES, Calls, Tell, open_calls
from handlers.forge.pull_plan import PullPlan
from handlers.forge.readiness import Standing
from handlers.phases import promotion_check
from handlers.release.override import OverrideRequest
from handlers.release.phase import short
from handlers.release.pulled import MergedPull


@dataclass(kw_only=True)
class Wait:
    """What is waited for, since when, and until when."""

    tell: Tell
    since: dict[str, float] = field(default_factory=dict)
    """When each kind of thing was first missing without a break, by the monotonic clock."""
    told: str = ""
    told_at: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def show(self, sentence: str) -> None:
        """Tell it when it is new, and otherwise from time to time with how long it has taken."""
        now = time.monotonic()
        if sentence != self.told or now - self.told_at >= TOLD_SECONDS:
            waited = f" ({now - self.began:.0f} s)" if sentence == self.told else ""
            self.tell(f"{sentence}{waited}")
            self.told, self.told_at = sentence, now

    def seconds(self, kind: str, missing: bool) -> float:
        """How long something of this kind has been missing."""
        if not missing:
            self.since.pop(kind, None)
            return 0.0
        return time.monotonic() - self.since.setdefault(kind, time.monotonic())

    def raise_if_over(self, environment: Environment, standing: Standing) -> None:
        """Raise what ends the wait: a refusal, or a limit of the environment file."""
        settings = environment.forge
        assert settings is not None
        if standing.refusals:
            raise Refused("; ".join(standing.refusals))
        absent, running = "; ".join(standing.absent), "; ".join(standing.running)
        if self.seconds("absent", bool(absent)) > settings.appear_seconds:
            raise Refused(
                f"{absent}, after {settings.appear_seconds:g} s (forge.appear_seconds): check that it starts for "
                f"{settings.head_branch}, and its name in the environment file"
            )
        if self.seconds("running", bool(running)) > settings.checks_seconds:
            raise TryAgain(
                f"{running}, after {settings.checks_seconds:g} s (forge.checks_seconds). The same command goes on later"
            )
        alone = bool(standing.people) and not (absent or running)
        if self.seconds("people", alone) > settings.review_seconds:
            raise WaitsForPeople(
                f"{'; '.join(standing.people)}, after {settings.review_seconds:g} s (forge.review_seconds). "
                "The same command goes on later"
            )


async def bring(
    environment: Environment,
    commit: str,
    *,
    clone: Path,
    reason: str,
    tell: Tell,
    override: OverrideRequest | None,
) -> MergedPull | None:
    """Get a commit onto the environment's branch by a pull request, and return that. None where it is there already."""
    assert environment.forge is not None
    async with open_calls(environment.forge, tell) as calls:
        found = await pulling.find(calls, environment.deploy.branch, commit)
        if found.pull is None or not found.pull.merged:
            await push_and_watch(calls, environment, commit, clone=clone)
        plan = await pulling.make_plan(calls, environment, commit)
        if found.pull is not None and found.pull.merged:
            return await _finish(calls, found.pull)
        if plan is None:
            tell(f"{short(commit)} is on {environment.deploy.branch} already: no pull request is needed")
            return None
        pull = await open_pull(calls, environment, plan, reason=reason)
        return await merge(calls, environment, plan, pull, override=override)


async def push_and_watch(calls: Calls, environment: Environment, commit: str, *, clone: Path) -> None:
    """Push the commit to the head branch, if it is not there, and wait for the workflows that this starts."""
    settings = calls.settings
    if await repository.tip_of(calls, settings.head_branch) != commit:
        calls.tell(f"pushing {short(commit)} to {settings.head_branch} of {settings.repository}")
        await local_git.push(clone, settings, commit)
    wait = Wait(tell=calls.tell)
    while settings.workflows:
        runs = await repository.workflow_runs(calls, commit)
        found = readiness.of_workflows(settings, runs, commit)
        wait.show(found.sentence)
        if found.good:
            return
        wait.raise_if_over(environment, found)
        await asyncio.sleep(settings.poll_seconds)


async def open_pull(calls: Calls, environment: Environment, plan: PullPlan, *, reason: str) -> Pull:
    """Open the pull request of a plan, or use the one that is open. The description is made from the plan."""
    proof = ""
    if environment.promotion is not None:
        promoter = promotion_check.promoter_of(environment, environment.promotion)
        proof = (await promotion_check.ask(promoter, plan.head, environment.promotion.max_age_hours)).what
    pull = await pulling.ensure_open(calls, plan, plan.description(proof, reason))
    calls.tell(f"pull request {pull.number}: {pull.html_url}")
    return pull


async def wait_until_ready(calls: Calls, environment: Environment, plan: PullPlan, pull: Pull) -> Pull:
    """Wait until nothing is missing, or it is merged. Raises what ends the wait, and HeadMoved."""
    wait = Wait(tell=calls.tell)
    while True:
        pull = await repository.pull(calls, pull.number)
        pulling.raise_if_moved(pull, plan.head)
        if pull.merged:
            return pull
        found = await pulling.standing(calls, pull)
        wait.show(found.sentence or "nothing is missing")
        if found.good:
            return pull
        wait.raise_if_over(environment, found)
        await asyncio.sleep(calls.settings.poll_seconds)


async def merge(
    calls: Calls, environment: Environment, plan: PullPlan, pull: Pull, *, override: OverrideRequest | None
) -> MergedPull:
    """Wait until it is ready, merge exactly the planned commit once, and return what was made of it."""
    pull = await wait_until_ready(calls, environment, plan, pull)
    if not pull.merged:
        await _raise_if_unproven(environment, plan.head, override)
        await pulling.raise_if_more(calls, pull)
        pull = await _merge_patiently(calls, plan, pull)
    return await _finish(calls, pull)


async def _merge_patiently(calls: Calls, plan: PullPlan, pull: Pull) -> Pull:
    for number in range(TRIES):
        calls.tell(f"merging pull request {pull.number} at {short(plan.head)}")
        if (merged := await pulling.merge_once(calls, pull, plan)) is not None:
            return merged
        calls.tell("no answer came, and it is not merged; asking again")
        await asyncio.sleep(min(0.5 * 2**number, calls.settings.poll_seconds))
    raise TryAgain(
        f"{calls.settings.host} did not merge pull request {pull.number}, {TRIES} times in a row without an answer. "
        "The same command goes on later"
    )


async def _raise_if_unproven(environment: Environment, commit: str, override: OverrideRequest | None) -> None:
    """Raise Refused, or TryAgain, where the environment before has not proven the commit: a merge is not taken back."""
    found = await promotion_check.check(environment, commit, override)
    if found is not None and not found[0].good:
        kind = TryAgain if found[0].temporary else Refused
        raise kind(f"the pull request is not merged: {found[0].sentence}")


async def _finish(calls: Calls, pull: Pull) -> MergedPull:
    merged = await pulling.merged_fact(calls, pull)
    calls.tell(merged.sentence)
    if not merged.same_files:
        raise Refused(
            f"pull request {merged.number} was merged as {short(merged.commit)}, but its files are not those of "
            f"{short(merged.head)}: {pull.base.ref} had other changes. Nobody has tested them; merge {pull.base.ref} "
            f"into {pull.head.ref}, and release that commit"
        )
    return merged
