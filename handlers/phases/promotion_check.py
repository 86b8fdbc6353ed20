"""Asking the ledger of another environment whether it has proven a commit. It may be in another database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from handlers.database import clock
from handlers.database.engine import controller_engine
from handlers.database.sqlstate import message_of
from handlers.database.transaction import transaction
from handlers.environment.load import beside, env_option, load_environment
from handlers.environment.model import Environment
from handlers.environment.promoting import Promotion
from handlers.errors import ConfigError, Refused, RunbookError, TryAgain
from handlers.release import promoted
from handlers.release.ledger import commit_history
from handlers.release.override import OverrideRequest, PlannedOverride
from handlers.release.phase import short
from handlers.release.planned import Check
from handlers.release.promoted import Proof
from handlers.release.pulled import MergedPull

NAME = "promotion"
"""The name of the check."""


async def check(
    environment: Environment,
    revision: str,
    request: OverrideRequest | None = None,
    pull: MergedPull | None = None,
) -> tuple[Check, tuple[PlannedOverride, ...]] | None:
    """Whether *revision*, a whole commit id, may be released here, and what a person overrides for it.

    With the *pull* request that made it, a proof of what was merged counts too: the files are the same.
    None where the environment has no promotion. Nothing raises: a ledger that could not be asked is a failed check.
    """
    promotion = environment.promotion
    if promotion is None:
        return None
    temporary, detail = False, ""
    try:
        promoter = promoter_of(environment, promotion)
        proof = await ask(promoter, revision, promotion.max_age_hours)
        if not proof.good and pull is not None and pull.same_files and pull.commit == revision:
            merged = await ask(promoter, pull.head, promotion.max_age_hours)
            # What was released there itself, and was rolled back, is not proven by the same files.
            proof = _with_same_files(merged, pull) if not proof.release_id else proof
    except RunbookError as error:
        what = f"{promotion.environment} could not be asked whether it has proven {short(revision)}"
        proof = Proof(good=False, what=what)
        temporary, detail = isinstance(error, TryAgain), f": {error}"
    ruling = promoted.rule(proof, promotion, environment.roles, request)
    sentence = ruling.sentence.replace(proof.what, proof.what + detail, 1)
    failed = Check(
        name=NAME,
        good=ruling.good,
        warns=ruling.warns,
        sentence=sentence,
        temporary=temporary and not ruling.good,
    )
    return failed, ruling.overrides


def _with_same_files(proof: Proof, pull: MergedPull) -> Proof:
    files = f"pull request {pull.number} merged it as {short(pull.commit)} with the same files"
    return replace(proof, what=f"{proof.what}; {files}")


async def can_be_asked(environment: Environment) -> Check | None:
    """Whether the other environment can be asked at all; None where the environment has no promotion."""
    promotion = environment.promotion
    if promotion is None:
        return None
    try:
        await ask(promoter_of(environment, promotion), "", promotion.max_age_hours)
    except RunbookError as error:
        sentence = f"{promotion.environment} could not be asked what it has proven: {error}"
        return Check(name=NAME, good=False, sentence=sentence, temporary=isinstance(error, TryAgain))
    sentence = f"the ledger of {promotion.environment} answers; a release needs its proof of the commit"
    return Check(name=NAME, good=True, sentence=sentence)


async def ask(environment: Environment, revision: str, max_age_hours: float) -> Proof:
    """What *environment* says about this whole commit id, by its own ledger and the time of its database.

    Raises DatabaseDown, LoginRefused or Refused when it could not be asked: that is no answer.
    """
    engine = controller_engine(environment.database)
    try:
        async with transaction(engine) as tx:
            runs = await commit_history.of_commit(tx, environment.name, revision)
            now = await clock.now(tx)
    except DBAPIError as error:
        raise Refused(
            f"the ledger of {environment.name} cannot be read: {message_of(error)}. Our login there needs USAGE on "
            "schema runbook, and SELECT on its tables release and phase_record"
        ) from error
    finally:
        await engine.dispose()
    return promoted.judge(
        runs,
        environment.name,
        revision,
        now,
        max_age_hours=max_age_hours,
        option=env_option(environment.name),
    )


def promoter_of(environment: Environment, promotion: Promotion) -> Environment:
    """The environment that must have proven a commit, by its file as it is now. Raises ConfigError."""
    found = load_environment(beside(environment.name, promotion.environment))
    if found.name != promotion.environment:
        raise ConfigError(
            f"the file {Path(promotion.environment).name}.toml has the name {found.name!r}, but promotion.environment "
            f"is {promotion.environment!r}"
        )
    return found
