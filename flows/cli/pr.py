"""`runbook pr`: the pull request that brings a commit onto the environment's branch, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from flows import pull_request
from flows.cli.app import pr_app
from flows.cli.json_objects import PullRequest
from flows.cli.options import EnvironmentOption, JsonOption, ReasonOption, YesOption
from flows.cli.output import confirm, console, print_json
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.errors import ExitCode, Refused
from handlers.forge import local_git, pulling, repository
from handlers.forge.answers import Pull
from handlers.forge.calls import Calls, open_calls
from handlers.forge.pull_plan import PullPlan, planned_in
from handlers.forge.readiness import Standing
from handlers.release.phase import short
from handlers.release.pulled import MergedPull

RevisionArgument = Annotated[
    str | None,
    typer.Argument(
        help="Commit, tag or branch of the local clone, or a whole commit id. Default: the head branch on the forge.",
        show_default=False,
    ),
]
RepositoryOption = Annotated[
    Path,
    typer.Option("--repository", "-C", help="The local clone that is pushed from. Default: this folder."),
]
PlanOption = Annotated[
    str, typer.Option("--plan", help="Merge only if the plan still has this hash (from `runbook pr show`).")
]


@pr_app.command()
def show(
    environment: EnvironmentOption,
    revision: RevisionArgument = None,
    repository_: RepositoryOption = Path(),
    json: JsonOption = False,
) -> int:
    """Show the pull request, its plan with the hash, and what is missing before the merge; changes nothing."""

    async def execute(calls: Calls, settings: Environment) -> int:
        commit = await _commit(calls, revision, repository_)
        found = await pulling.find(calls, settings.deploy.branch, commit)
        if found.pull is not None and found.pull.merged:
            return _print_merged(settings, await pulling.merged_fact(calls, found.pull), json=json)
        plan = await pulling.make_plan(calls, settings, commit)
        if found.pull is not None:
            pulling.raise_if_moved(found.pull, commit)
        standing = await pulling.standing(calls, found.pull) if found.pull is not None else Standing()
        _print(settings, commit, plan, found.pull, standing, json=json)
        return ExitCode.GOOD

    return _run(environment, execute, json=json)


@pr_app.command("open")
def open_(
    environment: EnvironmentOption,
    revision: RevisionArgument = None,
    repository_: RepositoryOption = Path(),
    reason: ReasonOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Push the commit, wait for its workflows, and open the pull request with a description made from the plan."""

    async def execute(calls: Calls, settings: Environment) -> int:
        commit = await _commit(calls, revision, repository_)
        confirm(
            f"push {short(commit)} to {calls.settings.head_branch} and open a pull request into "
            f"{settings.deploy.branch} of {calls.settings.repository}?",
            yes=yes,
        )
        await pull_request.push_and_watch(calls, settings, commit, clone=repository_)
        plan = await pulling.make_plan(calls, settings, commit)
        if plan is None:
            raise Refused(
                f"{short(commit)} is on {settings.deploy.branch} already: `runbook release {commit}`"
            )
        pull = await pull_request.open_pull(calls, settings, plan, reason=reason)
        _print(settings, commit, plan, pull, await pulling.standing(calls, pull), json=json)
        return ExitCode.GOOD

    return _run(environment, execute, json=json)


@pr_app.command()
def wait(
    environment: EnvironmentOption,
    revision: RevisionArgument = None,
    repository_: RepositoryOption = Path(),
    json: JsonOption = False,
) -> int:
    """Wait until checks and reviews are good, or say why they will not be."""

    async def execute(calls: Calls, settings: Environment) -> int:
        pull, commit = await _opened(calls, settings, revision, repository_)
        plan = await _plan(calls, settings, commit)
        pull = await pull_request.wait_until_ready(calls, settings, plan, pull)
        if pull.merged:
            return _print_merged(settings, await pulling.merged_fact(calls, pull), json=json)
        _print(settings, commit, plan, pull, await pulling.standing(calls, pull), json=json)
        return ExitCode.GOOD

    return _run(environment, execute, json=json)


@pr_app.command()
def merge(
    environment: EnvironmentOption,
    revision: RevisionArgument = None,
    repository_: RepositoryOption = Path(),
    plan_hash: PlanOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
) -> int:
    """Wait until nothing is missing, and merge exactly the planned commit. A second call only says what was merged."""

    async def execute(calls: Calls, settings: Environment) -> int:
        pull, commit = await _opened(calls, settings, revision, repository_)
        if pull.merged:
            return _print_merged(settings, await pulling.merged_fact(calls, pull), json=json)
        plan = await _plan(calls, settings, commit)
        planned = planned_in(pull.body)
        if (expected := plan_hash or (planned[1] if planned else "")) != plan.hash:
            was = (
                f"plan {expected} is outdated: the plan is {plan.hash} now"
                if expected
                else "it has no plan of ours"
            )
            raise Refused(
                f"pull request {pull.number} is not merged, {was}. Run `runbook pr open` and check it again"
            )
        confirm(f"merge {short(commit)} into {plan.base} (pull request {pull.number})?", yes=yes)
        return _print_merged(
            settings, await pull_request.merge(calls, settings, plan, pull, override=None), json=json
        )

    return _run(environment, execute, json=json)


def _run(environment: str, execute: Callable[[Calls, Environment], Awaitable[int]], *, json: bool) -> int:
    async def run() -> int:
        settings = load_environment(environment)
        async with _calls(settings, json=json) as calls:
            return await execute(calls, settings)

    return asyncio.run(run())


@asynccontextmanager
async def _calls(settings: Environment, *, json: bool) -> AsyncIterator[Calls]:
    if settings.forge is None:
        raise Refused(f"{settings.name} has no forge: add [forge] to its file (docs/forge.md explains it)")
    async with open_calls(settings.forge, teller(json=json)) as calls:
        yield calls


def teller(*, json: bool) -> Callable[[str], None]:
    """Prints a sentence for the person who waits: on stderr with --json."""
    return lambda sentence: typer.echo(sentence, err=json)


async def _commit(calls: Calls, revision: str | None, clone: Path) -> str:
    """The whole commit id that is meant. Raises Refused when there is none."""
    if revision is None:
        if tip := await repository.tip_of(calls, calls.settings.head_branch):
            return tip
        raise Refused(
            f"{calls.settings.repository} has no branch {calls.settings.head_branch} yet: name a revision"
        )
    return await local_git.whole_commit(clone, revision)


async def _opened(calls: Calls, settings: Environment, revision: str | None, clone: Path) -> tuple[Pull, str]:
    """The open or merged pull request, and the commit that it was planned for. Raises Refused without one.

    Without a revision it is the commit in the description: a branch that has moved since was not planned.
    """
    commit = await _commit(calls, revision, clone)
    found = (await pulling.find(calls, settings.deploy.branch, commit)).pull
    if found is None:
        raise Refused(f"there is no pull request for {short(commit)}: run `runbook pr open`")
    if revision is None and not found.merged and (planned := planned_in(found.body)):
        commit = planned[0]
    pulling.raise_if_moved(found, commit)
    return found, commit


async def _plan(calls: Calls, settings: Environment, commit: str) -> PullPlan:
    if (plan := await pulling.make_plan(calls, settings, commit)) is None:
        raise Refused(f"{short(commit)} is on {settings.deploy.branch} already: `runbook release {commit}`")
    return plan


def _print(
    settings: Environment,
    commit: str,
    plan: PullPlan | None,
    pull: Pull | None,
    standing: Standing,
    *,
    json: bool,
) -> None:
    missing = standing.refusals + standing.absent + standing.running + standing.people
    if json:
        print_json(
            PullRequest(
                environment=settings.name,
                number=pull.number if pull else None,
                url=pull.html_url if pull else "",
                state=pull.state if pull else "none",
                head=commit,
                plan=plan.hash if plan else "",
                commits=plan.commits if plan else (),
                migrations=plan.migrations if plan else (),
                missing=missing,
                exit_code=0,
            )
        )
        return
    out = console(plain=True)
    if plan is None:
        out.print(f"{short(commit)} is on {settings.deploy.branch} already: nothing to merge")
        return
    out.print(f"plan {plan.hash}  {settings.name}  {short(commit)} -> {plan.base}")
    for line in plan.commits:
        out.print(f"   {line}")
    for each in plan.migrations:
        out.print(f" {each.mark:<9} {each.sentence}")
    if pull is None:
        out.print("no pull request yet: `runbook pr open` opens it")
        return
    out.print(f"pull request {pull.number}: {pull.html_url}")
    for sentence in missing:
        out.print(f" missing   {sentence}")
    out.print(
        f" {standing.done or 'nothing reports on this commit'}" if missing else " ready: `runbook pr merge`"
    )


def _print_merged(settings: Environment, merged: MergedPull, *, json: bool) -> int:
    if json:
        print_json(merged_answer(settings, merged))
    else:
        console(plain=True).print(f"{merged.sentence}. Release it: `runbook release {merged.commit}`")
    return ExitCode.GOOD


def merged_answer(settings: Environment, merged: MergedPull) -> PullRequest:
    """What `--json` says about a pull request that is merged."""
    return PullRequest(
        environment=settings.name,
        number=merged.number,
        url=merged.url,
        state="merged",
        head=merged.head,
        plan=merged.plan,
        merged=merged,
        exit_code=0,
    )
