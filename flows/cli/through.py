"""`runbook release --through staging,production`: one commit to several environments, one after the other.

Every environment has its own plan, approval, lock and ledger. Nothing is remembered between two calls: how far the
commit has come is in the ledgers, so a chain that was broken off is begun again with the same command.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from flows.cli import through_forge
from flows.cli.approve import print_waiting
from flows.cli.ask import follow_controller
from flows.cli.carry import outcome, run_driver
from flows.cli.options import RequestOptions, RunOptions
from flows.cli.output import advising, confirm, console, failure, print_error, print_json, requester
from flows.cli.start import override_request, print_plan, start
from handlers.core import Core, open_core
from handlers.environment.load import is_path, load_environment
from handlers.environment.model import Environment
from handlers.environment.promoting import MAX_AGE_HOURS
from handlers.errors import ExitCode, Refused, RunbookError
from handlers.phases.commit_progress import CommitProgress, Next, commit_of, progress
from handlers.release.ledger import releases
from handlers.release.phase import Phase, Release, exit_code
from handlers.release.planned import EVERYTHING


@dataclass(frozen=True, kw_only=True)
class Place:
    """One environment of a chain."""

    given: str
    """Its name or its file's path, as it was typed."""
    settings: Environment
    max_age_hours: float | None
    """How long a release counts as a proof for the next ones; None for the last environment."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.settings.name


async def release_through(
    through: str,
    revision: str,
    request: RequestOptions,
    run_options: RunOptions,
    *,
    override_promotion: bool,
) -> int:
    """Release *revision* to each environment in turn; the first that does not succeed ends the chain with its code."""
    if run_options.detach:
        raise Refused("--through waits for each release before it starts the next: leave out --detach")
    places = chain(through)
    json = run_options.json
    try:
        commit = await through_forge.push_first(
            [place.settings for place in places], revision, json=run_options.json
        )
    except RunbookError as error:
        code = _fail(places[0], error, json=json)
        _end(places, 0, None, revision, code, json=json)
        return code
    named = commit
    for number, place in enumerate(places):
        with advising(place.given):
            try:
                async with open_core(place.settings) as core:
                    named = named or await commit_of(core, revision)
                    commit = await through_forge.merge_before(
                        place.settings,
                        commit or named,
                        reason=request.reason,
                        override=override_request(
                            request.by,
                            request.reason,
                            freeze=False,
                            promotion=override_promotion,
                        ),
                        json=json,
                    )
                    code = await _bring(
                        core, place, commit, request, run_options, override_promotion=override_promotion
                    )
                    ended = await _newest(core, commit) if code else None
            except (RunbookError, typer.Abort) as error:
                code, ended = _fail(place, error, json=json), None
        if code:
            _end(places, number, ended, named or revision, code, json=json)
            return code
    if not json:
        console().print(f"{named[:7]} is released to {', '.join(place.name for place in places)}")
    return ExitCode.GOOD


def chain(through: str) -> list[Place]:
    """The environments of --through, in order. Raises Refused, and ConfigError for a file that cannot be used.

    All files are read before anything starts: a typing error in the last name is found before the first release.
    """
    given = [name.strip() for name in through.split(",")]
    settings = [load_environment(name) for name in given if name]
    names = [each.name for each in settings]
    if len(names) < 2 or not all(given):
        raise Refused(f"--through {through!r}: name at least two environments, such as staging,production")
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refused(f"--through {through!r}: {twice[0]} is named twice")
    through_forge.raise_if_unclear(settings)
    for number, each in enumerate(settings):
        first = each.promotion.environment if each.promotion else ""
        if first in names[number + 1 :]:
            raise Refused(
                f"--through {through!r}: {each.name} needs the proof of {first}, so {first} must come before it"
            )
    return [
        Place(
            given=name,
            settings=each,
            max_age_hours=_max_age_hours(each, settings[number + 1 :]),
        )
        for number, (name, each) in enumerate(zip(given, settings, strict=True))
    ]


def _max_age_hours(place: Environment, later: Sequence[Environment]) -> float | None:
    """The shortest time that the environments after this one let its releases count; None after the last."""
    wanted = [
        each.promotion.max_age_hours
        for each in later
        if each.promotion is not None and each.promotion.environment == place.name
    ]
    return min(wanted, default=MAX_AGE_HOURS) if later else None


async def _bring(
    core: Core,
    place: Place,
    commit: str,
    request: RequestOptions,
    run_options: RunOptions,
    *,
    override_promotion: bool,
) -> int:
    """Release the commit to one environment, or go on with the release that is under way. Returns its exit code."""
    found = await progress(core, commit, max_age_hours=place.max_age_hours)
    json, run = run_options.json, found.release
    match found.next:
        case Next.NOTHING if run is not None:
            await _print_released(core, run, found, json=json)
            return ExitCode.GOOD
        case Next.WAIT if run is not None:
            return await print_waiting(core.database, run, found.sentence, json=json)
        case Next.FOLLOW if run is not None:
            return await follow_controller(core.database, place.given, run, run_options)
        case Next.CONTINUE if run is not None:
            if run.phase in (Phase.PLANNED, Phase.APPROVED):
                # Somebody else may have planned it: what starts here is shown, and confirmed.
                if not json:
                    print_plan(await releases.plan(core.database, run.id), json=False)
                confirm(f"start release {run.id}?", yes=request.yes)
            because = ["--because", f"continued by {requester(request.by)} with --through"]
            return await run_driver(core.database, place.given, run, "execute", because, run_options)
    if found.sentence and not json:
        console().print(f"{found.sentence}; it is released to {place.name} again")
    return await start(
        place.given, commit, EVERYTHING, request, run_options, override_promotion=override_promotion
    )


async def _print_released(core: Core, run: Release, found: CommitProgress, *, json: bool) -> None:
    if json:
        print_json(await outcome(core.database, run))
    else:
        console().print(f"{found.sentence}: nothing to do in {run.environment}")


async def _newest(core: Core, commit: str) -> Release | None:
    """The newest release of the commit; None where none was recorded."""
    past = await releases.history(core.database, core.environment.name)
    return next((run for run in past if run.to_revision == commit), None)


def _fail(place: Place, error: RunbookError | typer.Abort, *, json: bool) -> int:
    """Print why an environment was not released, and return the exit code."""
    if isinstance(error, RunbookError):
        sentence, code = str(error), error.exit_code
    else:
        sentence, code = (
            "not confirmed; nothing was started here. Answer yes, or use --yes.",
            ExitCode.REFUSED,
        )
    if json:
        print_json({"environment": place.name, "release": None, "outcome": None, **failure(sentence, code)})
    print_error(f"{place.name}: {sentence}")
    return code


def _end(
    places: Sequence[Place], number: int, ended: Release | None, commit: str, code: int, *, json: bool
) -> None:
    """Say that the chain ends here, and what is not released therefore."""
    ended_at, rest = places[number], places[number + 1 :]
    if not rest:
        return
    sentence = f"the chain ended in {ended_at.name} with exit code {code}"
    if ended is not None:
        sentence = f"release {ended.id} is {ended.phase} in {ended_at.name}"
    if ended is None or exit_code(ended.phase) is ExitCode.HELD:
        until = "it has succeeded" if ended else "that is mended"
        sentence += f". Once {until}, `{_again(places, commit)}` goes on"
    for place in rest:
        why = f"{place.name} is not released, because {sentence}"
        if json:
            print_json(
                {
                    "environment": place.name,
                    "release": None,
                    "outcome": None,
                    "exit_code": int(code),
                    "reason": why,
                }
            )
    if not json:
        names = " and ".join(place.name for place in rest)
        console().print(f"{names} {'is' if len(rest) == 1 else 'are'} not released: {sentence}")


def _again(places: Sequence[Place], commit: str) -> str:
    """The same command for the same commit: a branch may have moved on. A path works in every folder."""
    given = [os.path.abspath(place.given) if is_path(place.given) else place.given for place in places]
    return f"runbook release {commit} --through {shlex.quote(','.join(given))}"
