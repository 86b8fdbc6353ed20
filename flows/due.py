"""The schedule's part of "somebody always carries it on": once a minute it continues what nobody carries."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.forms import EnvironmentName

log = logging.getLogger(__name__)

LIMIT_SECONDS = 110.0
"""The command waits up to a minute for the end of a silent controller's lock, then starts a driver and returns."""


@flow(name="resume-due", flow_run_name="resume-due")
async def resume_due(environment: EnvironmentName | None = None) -> State[None]:
    """Continue every release that is due: the same as `runbook resume --due --detach`.

    The releases run in processes of their own, so that this run ends in seconds, and its end ends no release. Whoever
    starts it, and however often: what somebody carries already is left alone.

    Args:
        environment: only this one; empty means all
    """
    only = [f"--environment={environment}"] if environment else []
    return await run_command("resume", "--due", *only, limit_seconds=LIMIT_SECONDS, found="Continued")


@flow(name="notify", flow_run_name="notify")
async def notify_due(environment: EnvironmentName | None = None) -> State[None]:
    """Send what people should hear of and what is still in the outbox: the same as `runbook notify --due`.

    Args:
        environment: only this one; empty means all
    """
    only = [f"--environment={environment}"] if environment else []
    try:
        _, out, errors = await output_of("notify", "--due", *only, "--json", limit_seconds=LIMIT_SECONDS)
    except NoAnswer as error:
        return Completed(name="TimedOutLooking", message=str(error))
    return _as_state(out, errors, "Sent")


class NoAnswer(Exception):
    """A command took longer than its limit, and was stopped."""


async def run_command(*words: str, limit_seconds: float, found: str) -> State[None]:
    """Run a command of the command line that looks at all environments, and return what it says.

    *found* is the name of the state where it found something to do.
    """
    try:
        _, out, errors = await output_of(*words, "--detach", "--json", limit_seconds=limit_seconds)
    except NoAnswer as error:
        return Completed(name="TimedOutLooking", message=str(error))
    return _as_state(out, errors, found)


async def output_of(*words: str, limit_seconds: float) -> tuple[int, str, str]:
    """Run a command of the command line: its exit code, and what it prints on stdout and stderr. Raises NoAnswer."""
    # The driver is no part of this flow run, and must not take itself for it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "flows.cli",
        *words,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_seconds):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NoAnswer(f"no answer within {limit_seconds:g} s") from None
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def _as_state(out: str, errors: str, found: str) -> State[None]:
    """What was found in each environment. A fault of one is shown, and is no failure of the schedule."""
    for line in errors.splitlines():
        log.warning("%s", line)
    try:
        results = json.loads(out.strip().splitlines()[-1])["environments"]
    except (IndexError, KeyError, ValueError):
        return Completed(name="NotLooked", message=(errors or out).strip()[-500:] or "no answer")
    sentences = "; ".join(f"{each['environment']}: {each['sentence']}" for each in results)
    is_due = any(each.get("due", True) for each in results)
    return Completed(name=found if is_due else "NothingDue", message=sentences[:1000])
