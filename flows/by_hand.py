"""What a person starts by hand on the Prefect page besides a release: plan, canary, drain, watch and verify."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.cli.plan_text import lines
from flows.ending import as_told, failed
from flows.forms import EnvironmentName, OptionalReason, Person, Revision
from flows.release import execute
from flows.shown import WIDTH
from handlers.errors import RunbookError
from handlers.release.phase import Phase, Release, short
from handlers.report.verdict import Answer
from tasks import page_artifacts
from tasks import plan as planning
from tasks import verify as verifying


@flow(name="plan", flow_run_name="plan {revision} to {environment}")
async def plan(environment: EnvironmentName, revision: Revision) -> State[None]:
    """Show what a release would do, and whether every check passes. It changes nothing.

    Args:
        environment: name of the environment file, such as production
        revision: commit, tag or branch of the ERP
    """
    try:
        made = await planning.make(environment, revision)
    except RunbookError as error:
        return failed(error)
    await page_artifacts.show_alone("plan", environment, page_artifacts.fenced("\n".join(lines(made, WIDTH))))
    if not made.good:
        return Failed(name="Refused", message=made.refusal)
    return Completed(message=f"plan {made.hash} to {short(made.to_revision)}: {made.summary}")


@flow(name="canary", flow_run_name="canary in {environment}")
async def canary(
    environment: EnvironmentName, requested_by: Person, reason: OptionalReason = ""
) -> State[None]:
    """Prove the revision that runs now on exactly one dead letter. It deploys nothing.

    Args:
        environment: name of the environment file, such as production
        requested_by: name of the person who requests it
        reason: one sentence for the ledger and the report
    """
    return await _phases(environment, (Phase.PROBING, Phase.CANARY), requested_by, reason)


@flow(name="drain", flow_run_name="drain {environment}")
async def drain(
    environment: EnvironmentName, requested_by: Person, reason: OptionalReason = ""
) -> State[None]:
    """Prove the revision that runs now, then drain the dead letters in growing batches. It deploys nothing.

    Args:
        environment: name of the environment file, such as production
        requested_by: name of the person who requests it
        reason: one sentence for the ledger and the report
    """
    scope = (Phase.PROBING, Phase.CANARY, Phase.DRAINING)
    return await _phases(environment, scope, requested_by, reason)


@flow(name="watch", flow_run_name="watch {environment}")
async def watch(
    environment: EnvironmentName, requested_by: Person, reason: OptionalReason = ""
) -> State[None]:
    """Watch live traffic with the revision that runs now, for the environment's window. It deploys nothing.

    Args:
        environment: name of the environment file, such as production
        requested_by: name of the person who requests it
        reason: one sentence for the ledger and the report
    """
    return await _phases(environment, (Phase.PROBING, Phase.WATCHING), requested_by, reason)


@flow(name="verify", flow_run_name="verify {environment}")
async def verify(environment: EnvironmentName) -> State[None]:
    """Measure every check of an environment and report on it. It changes nothing.

    Args:
        environment: name of the environment file, such as production
    """
    try:
        seen = await verifying.measure(environment)
    except RunbookError as error:
        return failed(error)
    await page_artifacts.show_alone("verify", environment, seen.markdown)
    if seen.answer == Answer.GOOD:
        return Completed(name="Good", message=seen.sentence)
    return Failed(name="NotGood", message=seen.sentence)


async def _phases(environment: str, scope: tuple[Phase, ...], by: str, reason: str) -> State[None]:
    async def work() -> Release:
        made = await planning.make(environment, None, scope)
        return await execute(await planning.record(made, requested_by=by, reason=reason))

    return await as_told(work)
