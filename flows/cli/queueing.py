"""Commands about the queue, the ERP's tables and our schema."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flows.cli.app import ByOption, EnvironmentOption, JsonOption, ReasonOption, db_app, queue_app
from flows.cli.output import console, person, print_json
from handlers import adopt, config, intake, trial
from handlers.core import engine
from handlers.database import begin
from handlers.entities import Refusal
from handlers.entities.document import BODY_BYTES_MAX
from handlers.errors import ExitCode, Refused
from handlers.webhooks import queue
from handlers.webhooks.event import EntityType
from rehearsal.running import ended_by_sigterm, undisturbed

STDIN = "-"


@queue_app.command("show")
def show(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Count the queue by status, and its dead letters by type and error; says what holds it back."""

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            async with begin(database) as tx:
                counts = await queue.counts(tx)
                dead = await queue.dead_letters(tx)
                limits = await intake.limits(tx)
        finally:
            await database.dispose()
        groups: dict[tuple[str, str, str], int] = {}
        for letter in dead:
            group = (letter.entity or letter.raw_type, letter.error_code or "", letter.fingerprint)
            groups[group] = groups.get(group, 0) + 1
        if json:
            told = [
                {"entity": entity, "error_code": code, "error": error, "count": count}
                for (entity, code, error), count in sorted(groups.items())
            ]
            print_json({"status": counts, "dead_letters": told, "limits": limits})
            return ExitCode.GOOD
        for status, count in counts.items():
            console().print(f"{count:>8} {status}")
        for (entity, code, error), count in sorted(groups.items()):
            console().print(f"{count:>8} dead: {entity}, {code or 'no code'}: {error[:120]}")
        for each in limits:
            console().print(f"held back: {_limit_line(each)}")
        return ExitCode.GOOD

    return asyncio.run(go())


@queue_app.command("limit")
def limit(
    environment: EnvironmentOption,
    per_ten_seconds: Annotated[
        int, typer.Option("--per-ten-seconds", min=0, help="So many events go through; 0 holds all.")
    ],
    entity: Annotated[
        str, typer.Option("--entity", help="Of this kind alone; without it of all kinds together.")
    ] = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=intake.SECONDS_MAX, help="Then it ends by itself.")
    ] = 300,
    by: ByOption = "",
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Hold the queue back: workers take only so many events in each ten seconds, for a while."""
    kind = _entity(entity) if entity else None
    who = person(by)
    if not reason:
        raise Refused("say with --reason why the queue is held back: others will wonder")

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            set_ = await intake.limit(
                database, kind, per_ten_seconds=per_ten_seconds, seconds=seconds, by=who, reason=reason
            )
        finally:
            await database.dispose()
        print_json(set_) if json else console().print(_limit_line(set_))
        return ExitCode.GOOD

    return asyncio.run(go())


@queue_app.command("unlimit")
def unlimit(
    environment: EnvironmentOption,
    entity: Annotated[
        str, typer.Option("--entity", help="Only the limit of this kind; without it every limit.")
    ] = "",
    json: JsonOption = False,
) -> int:
    """Let the queue flow again."""
    kind = _entity(entity) if entity else None

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            lifted = await (intake.lift_all(database) if kind is None else intake.lift(database, kind))
            left = await intake.limits(database)
        finally:
            await database.dispose()
        if json:
            print_json({"lifted": lifted, "left": left})
        else:
            console().print(f"lifted {len(lifted)}" if lifted else "there was no such limit in force")
            for each in left:
                console().print(f"still {_limit_line(each)}")
        return ExitCode.GOOD

    return asyncio.run(go())


def _limit_line(limit: intake.Limit) -> str:
    of = f"of {limit.entity}" if limit.entity else "of all kinds together"
    return (
        f"{limit.per_ten_seconds} events {of} in each 10 s until {limit.until:%H:%M:%S} UTC, "
        f"by {limit.set_by}: {limit.reason}"
    )


@queue_app.command("try")
def try_(
    entity: Annotated[str, typer.Option("--entity", help="Product, Customer, Invoice, SalesOrder, ...")],
    files: Annotated[list[str], typer.Argument(help="Files with a JSON body each; - is standard input.")],
    environment: Annotated[
        str | None,
        typer.Option("--environment", "-e", help="Try against this environment's tables; nothing is kept."),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Say what the core would do with each record of a body, one JSON line each; keeps nothing.

    Without an environment the records meet an empty database with the ERP's tables, so that whatever needs a
    parent says that it waits for it. A file that cannot be read, or holds no JSON, is a line like any other.
    """
    del json  # It speaks nothing but JSON anyway.
    kind = _entity(entity)
    unread: list[str] = []
    # Before the event loop: a signal can then end a read that waits for somebody to type.
    bodies = list(_bodies(files, unread))

    async def go() -> None:
        with ended_by_sigterm():
            async with (
                _tables(environment) as database,
                aclosing(trial.try_bodies(database, kind, bodies)) as told,
            ):
                async for one in told:
                    print_json(one)

    try:
        asyncio.run(go())
    except BrokenPipeError:
        # Whoever read our lines has seen enough (`| head`). What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if unread:
        # Not on stdout: there every line is a record.
        sys.stderr.write(f"runbook: could not read {', '.join(unread)}; the other files were tried\n")
        return ExitCode.REFUSED
    return ExitCode.GOOD


@db_app.command("upgrade")
def upgrade(environment: EnvironmentOption, json: JsonOption = False) -> int:
    """Create or migrate our own schema `runbook`; touches nothing of the ERP's."""
    # Here, because it takes a while to import and nothing else needs it.
    from handlers import migrate

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            applied = await migrate.upgrade(database)
        finally:
            await database.dispose()
        if json:
            print_json({"applied": applied})
        else:
            console().print(f"applied {', '.join(applied)}" if applied else "the ledger is up to date")
        return ExitCode.GOOD

    return asyncio.run(go())


@db_app.command("adopt")
def adopt_(
    environment: EnvironmentOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the DDL and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Add to the ERP's tables what the core needs: additive, printed first, and repeatable."""

    async def go() -> int:
        database = engine(config.load(environment))
        try:
            wanted = await adopt.adopt(database, dry_run=True)
            if not json:
                for statement in wanted:
                    console().print(f"{statement};")
            if dry_run or not wanted:
                print_json({"ddl": wanted, "done": False}) if json else console().print(
                    "nothing to adopt: the tables have all that the core needs"
                    if not wanted
                    else "nothing was changed"
                )
                return ExitCode.GOOD
            if not yes and not json:
                typer.confirm(f"run these {len(wanted)} statements?", abort=True)
            done = await adopt.adopt(database)
        finally:
            await database.dispose()
        print_json({"ddl": done, "done": True}) if json else console().print(f"{len(done)} statements done")
        return ExitCode.GOOD

    return asyncio.run(go())


@asynccontextmanager
async def _tables(environment: str | None) -> AsyncIterator[AsyncEngine]:
    """The environment's database, or an empty embedded one that exists for as long as this command."""
    if environment is not None:
        database = engine(config.load(environment))
        try:
            yield database
        finally:
            await database.dispose()
        return
    from rehearsal import empty

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tds-try-"))
        database = create_async_engine(await stack.enter_async_context(empty.database(Path(folder))))
        stack.push_async_callback(database.dispose)
        try:
            yield database
        finally:
            # Ctrl-C twice must not leave the server or its folder behind.
            with undisturbed():
                await stack.aclose()


def _entity(name: str) -> EntityType:
    wanted = name.replace("_", "").replace("-", "").lower()
    for kind in EntityType:
        if kind.value.lower() == wanted:
            return kind
    raise Refused(f"there is no entity {name!r}: it may be {', '.join(EntityType)}")


def _bodies(files: Iterable[str], unread: list[str]) -> Iterator[tuple[str, str | Refusal]]:
    """The text of each file, or why there is none; *unread* learns which could not be read."""
    for name in files:
        try:
            raw = _head(name)
        except OSError as error:
            unread.append(name)
            yield name, Refusal("(body)", f"cannot be read: {error.strerror}")
            continue
        yield name, _text(raw)


def _head(name: str) -> bytes:
    """What a file holds, up to one byte more than a body may have: it might be a device without an end."""
    if name == STDIN:
        return sys.stdin.buffer.read(BODY_BYTES_MAX + 1)
    with Path(name).open("rb") as file:
        return file.read(BODY_BYTES_MAX + 1)


def _text(raw: bytes) -> str | Refusal:
    if len(raw) > BODY_BYTES_MAX:
        return Refusal("(body)", f"is larger than {BODY_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Refusal("(body)", f"is not UTF-8 text: byte {error.start} is {raw[error.start]:#x}")
