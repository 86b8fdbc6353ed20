"""The pull request that made a revision, as the forge says it: a check and a fact of the plan."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.environment.model import Environment
from handlers.errors import RunbookError, TryAgain
from handlers.forge.calls import open_calls
from handlers.forge.pulling import merged_as
from handlers.forge.repository import look_at_repository
from handlers.release.phase import short
from handlers.release.planned import Check
from handlers.release.pulled import MergedPull

NAME = "pull request"
"""The name of the check."""


@dataclass(frozen=True, kw_only=True)
class MergedLook:
    """What the forge says about a revision."""

    check: Check
    pull: MergedPull | None = None
    """None where no pull request made the revision, or the forge could not be asked."""


async def look(environment: Environment, revision: str) -> MergedLook | None:
    """The merged pull request whose merge is *revision*. None where the environment has no forge.

    Nothing raises, and nothing fails: a forge that is away keeps nobody from a release that is proven in another way.
    """
    settings = environment.forge
    if settings is None:
        return None
    try:
        async with open_calls(settings) as calls:
            pull = await merged_as(calls, environment.deploy.branch, revision)
    except RunbookError as error:
        sentence = f"{settings.host} could not be asked which pull request made {short(revision)}: {error}"
        return MergedLook(
            check=Check(
                name=NAME, good=True, warns=True, sentence=sentence, temporary=isinstance(error, TryAgain)
            )
        )
    if pull is None:
        sentence = f"no pull request of {settings.repository} was merged as {short(revision)}"
        return MergedLook(check=Check(name=NAME, good=True, warns=True, sentence=sentence))
    return MergedLook(
        check=Check(name=NAME, good=True, warns=not pull.approved_by, sentence=pull.sentence), pull=pull
    )


async def can_be_asked(environment: Environment) -> Check | None:
    """Whether the forge answers and knows the repository; None where the environment has no forge."""
    settings = environment.forge
    if settings is None:
        return None
    try:
        async with open_calls(settings) as calls:
            found = await look_at_repository(calls)
    except RunbookError as error:
        # A release of what is on the branch already needs no forge.
        sentence, temporary = str(error), isinstance(error, TryAgain)
        return Check(name=NAME, good=True, warns=True, sentence=sentence, temporary=temporary)
    if found.archived:
        sentence = f"{found.full_name} is archived on {settings.host}: nothing can be merged there"
        return Check(name=NAME, good=True, warns=True, sentence=sentence)
    return Check(name=NAME, good=True, sentence=f"{settings.host} answers, and knows {found.full_name}")
