"""What a person decides on the Prefect page about a release: each is the same as its command, and ends in seconds."""

from __future__ import annotations

import json

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.due import NoAnswer, output_of
from flows.forms import EnvironmentName, Person, Reason
from handlers.errors import ExitCode

LIMIT_SECONDS = 110.0
"""A controller that does not react to a request is given up after 20 s; healing takes longest."""


@flow(name="hold", flow_run_name="hold {environment}: {reason}")
async def hold(environment: EnvironmentName, reason: Reason, requested_by: Person) -> State[None]:
    """Pause the release and leave things as they are: a deploy before its next group of hosts, all else at once.

    Args:
        environment: name of the environment file, such as production
        reason: why, in one sentence
        requested_by: name of the person who requests it
    """
    return await _decide("hold", environment, reason, requested_by, done="Held")


@flow(name="skip", flow_run_name="skip the phase in {environment}: {reason}")
async def skip(environment: EnvironmentName, reason: Reason, requested_by: Person) -> State[None]:
    """End a canary, a drain or a watch without its result, and go on.

    Args:
        environment: name of the environment file, such as production
        reason: why, in one sentence
        requested_by: name of the person who requests it
    """
    return await _decide("skip", environment, reason, requested_by, done="Skipped")


@flow(name="abort", flow_run_name="abort in {environment}: {reason}")
async def abort(environment: EnvironmentName, reason: Reason, requested_by: Person) -> State[None]:
    """End the release: back to the previous revision where hosts were changed.

    Args:
        environment: name of the environment file, such as production
        reason: why, in one sentence
        requested_by: name of the person who requests it
    """
    return await _decide("abort", environment, reason, requested_by, done="Aborted")


@flow(name="guard", flow_run_name="guard {environment}")
async def guard(environment: EnvironmentName) -> State[None]:
    """Take the checks after the last release that are due now. A breach begins the way back.

    Args:
        environment: name of the environment file, such as production
    """
    return await _run("guard", "--due", f"--environment={environment}", "--detach", done="Checked")


@flow(name="heal", flow_run_name="heal {environment}")
async def heal_now(environment: EnvironmentName) -> State[None]:
    """Heal one environment now: events of dead workers, old dead letters.

    Args:
        environment: name of the environment file, such as production
    """
    return await _run("heal", f"--environment={environment}", "--detach", done="Healed")


async def _decide(command: str, environment: str, reason: str, by: str, *, done: str) -> State[None]:
    options = (f"--environment={environment}", f"--reason={reason}", f"--by={by}", "--detach")
    return await _run(command, *options, done=done)


async def _run(*words: str, done: str) -> State[None]:
    """Run the command, and end in a state with its sentence. A refusal is a state, and no crash."""
    try:
        status, out, errors = await output_of(*words, "--json", limit_seconds=LIMIT_SECONDS)
    except NoAnswer as error:
        return Failed(name="NoAnswer", message=str(error))
    sentence = _sentence(out) or errors.strip() or f"{words[0]} has ended with exit code {status}"
    if status in (ExitCode.GOOD, ExitCode.HELD, ExitCode.ROLLED_BACK):
        return Completed(name=done, message=sentence[:1000])
    return Failed(name="Refused" if status == ExitCode.REFUSED else None, message=sentence[:1000])


def _sentence(out: str) -> str:
    """The sentence in the JSON of a command: its error, its reason, or that of each environment."""
    try:
        answer = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return ""
    for key in ("error", "reason", "sentence"):
        if answer.get(key):
            return str(answer[key])
    return "; ".join(f"{each['environment']}: {each['sentence']}" for each in answer.get("environments", ()))
