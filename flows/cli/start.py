"""How a command starts a release: plan it, show the plan, ask, record it, and run it."""

from __future__ import annotations

from contextlib import nullcontext

from flows.cli.approve import print_waiting
from flows.cli.carry import run_driver
from flows.cli.options import RequestOptions, RunOptions
from flows.cli.output import account, confirm, console, failure, print_json, requester
from flows.cli.plan_text import lines
from flows.telling import telling
from handlers.core import open_core
from handlers.environment.load import load_environment
from handlers.errors import Refused
from handlers.phases import approve, begin
from handlers.phases.plan import make_plan
from handlers.release import approval
from handlers.release.only import ALL, Only
from handlers.release.override import OverrideRequest, requested
from handlers.release.phase import Phase
from handlers.release.planned import Plan
from handlers.release.preflight import failure_of


def override_request(by: str, reason: str, *, freeze: bool, promotion: bool) -> OverrideRequest | None:
    """A person who starts something in spite of these rules; None when no rule is to be overridden."""
    return requested(requester(by), reason, account=account(), freeze=freeze, promotion=promotion)


async def start(
    environment: str,
    revision: str | None,
    scope: tuple[Phase, ...],
    request: RequestOptions,
    run_options: RunOptions,
    *,
    expect: str = "",
    left_by: str = "",
    only: Only = ALL,
    override_promotion: bool = False,
) -> int:
    """Plan a release, print the plan, ask for consent, record it, and run it to its end. Returns the exit code.

    With an *expect*ed hash it starts only if the plan still has this one. Raises Refused, or TryAgain, when a check
    fails. One that waits for approval is recorded and not run.
    """
    async with open_core(load_environment(environment)) as core:
        override = override_request(
            request.by, request.reason, freeze=request.override_freeze, promotion=override_promotion
        )
        release_plan = await make_plan(core, revision, scope, left_by=left_by, only=only, override=override)
        if not run_options.json:
            print_plan(release_plan, json=False)
        if not release_plan.good:
            raise failure_of(release_plan.checks)
        if expect and expect != release_plan.hash:
            raise Refused(
                f"plan {expect} is outdated: the plan is {release_plan.hash} now. "
                "Run `runbook plan` and check it again."
            )
        warning = f"{release_plan.start_warning}. " if release_plan.start_warning else ""
        what = "ask for its approval?" if approval.is_asked(release_plan) else "start it?"
        confirm(f"{warning}{what}", yes=request.yes)
        async with telling(environment) if approval.is_asked(release_plan) else nullcontext():
            run = await begin.record_release(
                core, release_plan, requested_by=requester(request.by), reason=request.reason
            )
        if why := await approve.why_waiting(core.database, run):
            return await print_waiting(core.database, run, why, json=run_options.json)
        return await run_driver(core.database, environment, run, "execute", [], run_options)


def print_plan(release_plan: Plan, *, json: bool) -> None:
    """Print a plan; as JSON with the error when a check fails."""
    if json:
        fields = release_plan.as_json()
        problem = (
            {}
            if release_plan.good
            else failure(release_plan.refusal, failure_of(release_plan.checks).exit_code)
        )
        print_json({**fields, **problem})
    else:
        for line in lines(release_plan):
            console().print(line)
