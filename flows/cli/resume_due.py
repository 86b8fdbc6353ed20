"""`runbook resume --due`: carry on every release that is due, without a person. A timer runs it each minute."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.everywhere import Place, Result, in_each
from flows.cli.options import RunOptions
from flows.cli.output import console
from handlers.database import migrate
from handlers.environment.load import env_option
from handlers.errors import ConfigError, DatabaseDown, ExitCode, Refused, RunbookError
from handlers.phases import approve
from handlers.release import due
from handlers.release.due import Care
from handlers.release.ledger import releases
from handlers.release.phase import Phase, exit_code

WAIT_SECONDS = 60.0
"""How long it waits for a release that will be due soon: for the end of a silent controller's lock. The next minute
brings the next run."""


def carry_on(environment: str | None, options: RunOptions) -> int:
    """Carry on what is due in one environment, or in all of the folder. Returns the worst exit code."""

    async def act(place: Place) -> Result:
        return await carry_on_in(place, options)

    return in_each(environment, options, act)


async def carry_on_in(place: Place, options: RunOptions) -> Result:
    """Carry on what is due in this environment, and follow it to its end unless *options* detach."""
    database, environment, name = place.database, place.given, place.settings.name
    if not await migrate.upgrade_existing(database):
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence="nothing is due: it has no ledger")
    expired = await approve.end_expired(database, name)
    care = await _find(database, name)
    if care is None and expired:
        sentence = "; ".join(f"release {run.id} is {run.phase}: {run.reason}" for run in expired)
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence=sentence)
    if care is not None and not care.due and due.is_watched(care.release):
        care = await _look_while_held(database, name, care)
    if care is None:
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence="nothing is due")
    run = care.release
    if not care.due:
        sentence = f"nothing is due; release {run.id} is {run.phase}: {care.sentence}"
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence=sentence, release=run.id)
    if not options.json:
        console(plain=options.plain).print(f"{name}: release {run.id} ({run.phase}) is due: {care.sentence}")
    # Imported here: a timer calls this command each minute, and mostly nothing is due.
    from flows.cli import follow
    from flows.cli.carry import outcome, until_settled

    # A temporary server would delay the start, and nobody looks at it.
    words = ["--without-prefect" if options.without_prefect else "--no-temporary-prefect"]
    words += ["--because", f"continued by `runbook resume --due`: {care.sentence}"]

    def start() -> follow.Driver:
        return follow.start("execute", environment, run.id, *words)

    driver = start()
    if options.detach:
        sentence = (
            f"release {run.id} continues; follow it with: runbook status --watch {env_option(environment)}"
        )
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence=sentence, release=run.id, due=True)
    out = console(plain=options.plain) if place.shown else None
    try:
        ended = await until_settled(database, run, driver, restart=start, out=out)
    except DatabaseDown:
        raise
    except Refused:
        # Another `resume --due` was faster; its driver has the lock.
        now = await due.care(database, await releases.get(database, run.id))
        if not now.carried:
            raise
        sentence = f"release {run.id} is {now.release.phase}: {now.sentence}"
        return Result(environment=name, exit_code=ExitCode.GOOD, sentence=sentence, release=run.id)
    return Result(
        environment=name,
        exit_code=exit_code(ended.phase),
        sentence=f"release {run.id}: {ended.phase}. {ended.reason}",
        release=run.id,
        due=True,
        outcome=await outcome(database, ended),
    )


async def _answering(care: Care) -> tuple[str, ...]:
    # Imported here: a timer calls this command each minute, and Prefect takes longer to import than it has to do.
    from tasks import rollback

    try:
        return await rollback.answering(care.release, care.away)
    except ConfigError:
        # Without its settings no host can be asked. The next try is due by time, and says so.
        return ()


async def _look_while_held(database: AsyncEngine, environment: str, care: Care) -> Care | None:
    """What is due after a look at the live traffic of a held release: a breach begins its way back."""
    # Imported here, as above.
    from tasks import looking

    try:
        looked = await looking.while_held(care.release)
    except (RunbookError, TimeoutError) as error:
        return replace(care, sentence=f"{care.sentence}; its live traffic was not looked at: {error}")
    return care if looked.phase is Phase.HELD else await due.find(database, environment)


async def _find(database: AsyncEngine, environment: str) -> Care | None:
    """What is due now, or within WAIT_SECONDS; then it waits for it.

    A host that is not back and answers again makes its release due.
    """
    care = await due.find(database, environment)
    if care is None or care.due or care.due_at is None or care.at is None:
        return care
    if care.away and (names := await _answering(care)):
        return replace(care, due=True, sentence=f"{', '.join(names)} was away and answers again")
    seconds = (care.due_at - care.at).total_seconds()
    if seconds > WAIT_SECONDS:
        return care
    await asyncio.sleep(max(0.0, seconds) + 0.2)
    return await due.find(database, environment)
