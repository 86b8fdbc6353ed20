"""Each program asks what it may do, and the roles of docs/roles.sql may do exactly that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.database import migrate
from handlers.database.engine import controller_engine, receiver_engine, worker_engine
from handlers.database.privileges import obstacles
from handlers.entities.registry import HANDLERS
from handlers.environment.model import Database
from handlers.erp import doctor
from handlers.erp.adopt import adopt
from handlers.erp.controller_needs import CONTROLLER_NEEDS
from handlers.errors import DatabaseDown, LoginRefused, Refused
from handlers.phases import synthetic
from handlers.phases.database_checks import read_queue
from handlers.queue import in_hand, limits, look
from handlers.queue.event import EntityType, Status
from handlers.queue.redrive import redrive
from handlers.receiver.readiness import NEEDS as RECEIVER_NEEDS
from handlers.worker.needs import needs as worker_needs
from handlers.worker.needs import raise_if_denied
from handlers.worker.worker import Worker, new_owner
from tests.integration.entities.events import example_records, parents_of
from tests.integration.phases.healing import Place, place
from tests.integration.queue.events import event, row
from tests.integration.receiver.calls import body, receiver
from tests.integration.release.steps import deploying
from tests.integration.worker.steps import statuses, until

ROLES = Path(__file__).parents[3] / "docs" / "roles.sql"
NAMES = ("tds_controller", "tds_worker", "tds_receiver")
PASSWORD = "only-for-this-test"


@dataclass(frozen=True, kw_only=True)
class Roles:
    """An engine of each role, made as the deployed program makes it, and the owner's."""

    owner: AsyncEngine
    controller: AsyncEngine
    worker: AsyncEngine
    receiver: AsyncEngine


async def run_file(engine: AsyncEngine) -> None:
    async with engine.begin() as tx:
        driver = (await tx.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute(ROLES.read_text(encoding="utf-8"))


@pytest_asyncio.fixture(loop_scope="session")
async def roles(engine: AsyncEngine, database_url: str) -> AsyncIterator[Roles]:
    """The three roles of the documentation on an adopted database, whose ledger belongs to the controller."""
    url = make_url(database_url)
    async with engine.begin() as tx:
        await tx.execute(text("DROP SCHEMA runbook CASCADE"))
    await adopt(engine)
    await run_file(engine)
    async with engine.begin() as tx:
        for name in NAMES:
            await tx.execute(text(f"ALTER ROLE {name} PASSWORD '{PASSWORD}'"))

    def place(name: str) -> Database:
        return Database(url=url.set(username=name, password=PASSWORD).render_as_string(hide_password=False))

    made = Roles(
        owner=engine,
        controller=controller_engine(place(NAMES[0])),
        worker=worker_engine(place(NAMES[1])),
        receiver=receiver_engine(place(NAMES[2])),
    )
    await migrate.upgrade(made.controller)
    await run_file(engine)
    yield made
    for each in (made.controller, made.worker, made.receiver):
        await each.dispose()
    async with engine.begin() as tx:
        for name in NAMES:
            await tx.execute(text(f"DROP OWNED BY {name} CASCADE"))
            await tx.execute(text(f"DROP ROLE {name}"))


def worker_of(roles: Roles) -> Worker:
    return Worker(roles.worker, owner=new_owner("test"), revision="r1", needs=worker_needs())


async def test_the_documented_roles_run_the_parts_of_a_release(roles: Roles) -> None:
    """Receive one of each kind, apply it, redrive it in a release, within a limit, and compare nothing denied."""
    assert (await obstacles(roles.receiver, RECEIVER_NEEDS)).sentence() == ""
    assert (await obstacles(roles.controller, CONTROLLER_NEEDS)).sentence() == ""
    await raise_if_denied(roles.worker, worker_needs())
    # The last ones win: of each kind the first record.
    first_of_each = {kind: record for _, kind, record in reversed(example_records())}
    assert set(first_of_each) == set(EntityType)
    parents = {
        (each.entity, each.key): json.loads(each.payload)
        for kind, record in first_of_each.items()
        for each in parents_of(kind, record)
    }
    records = [(kind, record) for (kind, _), record in parents.items()] + list(first_of_each.items())
    async with receiver(roles.receiver) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        for kind, record in records:
            content = body(record, HANDLERS[kind].wrappers[0])
            answer = await client.post(f"/webhooks/{kind.value}", content=content)
            assert answer.status_code == 200, (kind, answer.text)
    worker = worker_of(roles)
    async with roles.worker.connect() as tx:
        assert await in_hand.is_there(tx), "it may claim by row locks"
    await limits.limit(
        roles.controller, None, per_ten_seconds=100, seconds=60, by="test", reason="the least privileges"
    )
    assert await worker.step() == len(records)
    assert set(worker.tally) <= {"applied", "superseded"}
    await worker._maintain()
    assert (await read_queue(roles.controller)).problem is None
    async with roles.owner.begin() as tx:
        ids = list((await tx.execute(text("SELECT id FROM tds_sync_queue"))).scalars())
        await tx.execute(text("UPDATE tds_sync_queue SET status = 'dead_letter', locked_by = NULL"))
    release = await deploying(roles.controller)
    async with roles.controller.begin() as tx:
        assert len(await look.dead_letters(tx)) == len(ids)
        await redrive(tx, ids)
        await synthetic.insert(tx, release.id)
    await limits.lift_all(roles.controller)
    assert await worker.step() == len(ids) + 1
    await worker._record_shutdown()
    assert await doctor.examine(roles.controller, "staging") is not None


async def test_a_worker_waits_while_its_login_is_refused(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    """A password is being changed: a worker that ended each time would be started too often by its service manager."""
    worker, stop = worker_of(roles), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        first = await event(roles.owner, "1")
        await until(lambda: done(roles, first))
        async with roles.owner.begin() as tx:
            await tx.execute(text("ALTER ROLE tds_worker NOLOGIN"))
            await tx.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tds_worker'")
            )
        second = await event(roles.owner, "2")
        await until(lambda: told(caplog, "not permitted to log in"))
        assert not running.done()
        async with roles.owner.begin() as tx:
            await tx.execute(text("ALTER ROLE tds_worker LOGIN"))
        await until(lambda: done(roles, second), 20)
    finally:
        stop.set()
        await asyncio.wait_for(running, 15)


async def test_the_documented_controller_heals(roles: Roles, database_url: str) -> None:
    """A dead letter goes back and is applied by the documented worker; a lost lease is taken back."""
    url = (
        make_url(database_url).set(username=NAMES[0], password=PASSWORD).render_as_string(hide_password=False)
    )
    async with place(url) as here:
        letter = await Place(core=replace(here.core, database=roles.owner)).letter("1")
        lost = await event(
            roles.owner, "2", status="processing", locked_by="worker-1", lock_expires_at="sql:now()"
        )
        stop = asyncio.Event()
        running = asyncio.create_task(worker_of(roles).run(stop))
        try:
            await until(lambda: done(roles, lost), 20)
            healed = await here.heal()
        finally:
            stop.set()
            await asyncio.wait_for(running, 15)
        assert healed.healed == "1 of 1 dead letters completed", healed.sentence
        assert await statuses(roles.owner, [letter]) == [Status.COMPLETED]


async def test_a_worker_whose_login_never_worked_says_so_and_ends(roles: Roles) -> None:
    """It would wait for ever for a password that is simply wrong."""
    async with roles.owner.begin() as tx:
        await tx.execute(text("ALTER ROLE tds_worker NOLOGIN"))
    with pytest.raises(LoginRefused, match="not permitted to log in"):
        await worker_of(roles).run(asyncio.Event())


async def done(roles: Roles, id_: UUID) -> bool:
    return await statuses(roles.owner, [id_]) == [Status.COMPLETED]


async def told(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in record.getMessage() for record in caplog.records if record.name.endswith(".worker"))


async def test_every_listed_privilege_is_named_when_it_is_missing(engine: AsyncEngine) -> None:
    """A user without any privilege is told each one, with the statement that grants it."""
    async with engine.connect() as tx:
        await tx.execute(text("CREATE ROLE tds_nobody"))
        await tx.execute(text("GRANT USAGE ON SCHEMA public, runbook TO tds_nobody"))
        await tx.execute(text("SET ROLE tds_nobody"))
        for need in (*worker_needs(), *RECEIVER_NEEDS, *CONTROLLER_NEEDS):
            grant = f"run GRANT {', '.join(need.privileges.split())} ON {need.table} TO tds_nobody"
            assert grant in (await obstacles(tx, [need])).sentence()


async def denied(roles: Roles, *statements: str) -> str:
    """What the worker says at its start, after the owner ran *statements*."""
    async with roles.owner.begin() as tx:
        for statement in statements:
            await tx.execute(text(statement))
    with pytest.raises(Refused) as caught:
        await worker_of(roles).run(asyncio.Event())
    return str(caught.value)


HIDES: Sequence[tuple[str, bool]] = (
    ("ALTER TABLE tds_sync_queue ENABLE ROW LEVEL SECURITY", True),
    ("CREATE POLICY part ON tds_sync_queue USING (priority = 1)", True),
    ("CREATE POLICY every ON tds_sync_queue USING (true)", False),
    ("CREATE POLICY fewer ON tds_sync_queue AS RESTRICTIVE USING (priority = 1)", True),
    ("ALTER ROLE tds_worker BYPASSRLS", False),
)
"""Each statement after the one before: whether the worker may miss events then."""


async def test_row_security_that_hides_events_ends_the_worker(roles: Roles) -> None:
    """Without a policy, with one for a part, and with a restriction; not where everything is let through."""
    id_ = await event(roles.owner, "1")
    for statement, hides in HIDES:
        if hides:
            assert "row level security hides rows of tds_sync_queue" in await denied(roles, statement)
        else:
            async with roles.owner.begin() as tx:
                await tx.execute(text(statement))
            await raise_if_denied(roles.worker, worker_needs())
    assert (await row(roles.owner, id_))["status"] == "pending"


async def test_row_security_is_said_by_check_doctor_and_health(roles: Roles) -> None:
    """The queue would look empty, and every webhook would be refused while all seems well."""
    async with roles.owner.begin() as tx:
        await tx.execute(text("ALTER TABLE tds_sync_queue ENABLE ROW LEVEL SECURITY"))
    assert "row level security" in str((await read_queue(roles.controller)).problem)
    problems = [each.sentence for each in await doctor.examine(roles.controller)]
    assert any("row level security" in sentence for sentence in problems)
    async with receiver(roles.receiver) as client:
        answer = await client.get("/health")
    assert answer.status_code == 503
    assert "row level security" in answer.json()["reason"]


async def test_a_privilege_that_is_revoked_at_work_buries_nothing(roles: Roles) -> None:
    """The worker ends with the sentence, and its events are as they were before."""
    await event(roles.owner, "0")
    worker = worker_of(roles)
    assert await worker.step() == 1
    async with roles.owner.begin() as tx:
        await tx.execute(text("REVOKE INSERT ON products FROM tds_worker"))
    id_ = await event(roles.owner, "1")
    with pytest.raises(Refused, match="GRANT INSERT ON products TO tds_worker"):
        await worker.step()
    await worker._record_shutdown()
    told = await row(roles.owner, id_)
    assert (told["status"], told["attempt_count"], told["error_code"]) == ("pending", 0, None)


async def test_a_schema_without_usage_is_named(roles: Roles) -> None:
    """The table would seem to be missing."""
    said = await denied(
        roles, "REVOKE USAGE ON SCHEMA public FROM tds_worker", "REVOKE USAGE ON SCHEMA public FROM PUBLIC"
    )
    assert "run GRANT USAGE ON SCHEMA public TO tds_worker" in said


async def test_a_column_that_adoption_adds_is_named(roles: Roles) -> None:
    """A worker of a newer revision does not bury what the table cannot hold yet."""
    said = await denied(roles, "ALTER TABLE invoices DROP COLUMN price_precision")
    assert "columns are missing in invoices (price_precision): run `runbook db adopt`" in said


async def test_a_read_only_database_is_said_and_waited_for(roles: Roles, database_url: str) -> None:
    """The check fails, health is 503; the worker waits, because a failover passes."""
    name = make_url(database_url).database
    async with roles.owner.begin() as tx:
        await tx.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    for each in (roles.controller, roles.worker, roles.receiver):
        await each.dispose()
    queue = await read_queue(roles.controller)
    assert "read-only: default_transaction_read_only is on" in queue.obstacles.read_only
    with pytest.raises(DatabaseDown, match="the database is read-only"):
        await raise_if_denied(roles.worker, worker_needs())
    async with receiver(roles.receiver) as client:
        assert "read-only" in (await client.get("/health")).json()["reason"]
    async with roles.owner.begin() as tx:
        await tx.execute(text("SET TRANSACTION READ WRITE"))
        await tx.execute(text(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'))


async def test_the_superuser_is_denied_nothing(engine: AsyncEngine) -> None:
    """Row security does not hold for the owner, and the needs fit an adopted database."""
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE tds_sync_queue ENABLE ROW LEVEL SECURITY"))
    for each in (worker_needs(), RECEIVER_NEEDS, CONTROLLER_NEEDS):
        assert (await obstacles(engine, each)).sentence() == ""
    id_ = await event(engine, "1")
    assert await statuses(engine, [id_]) == [Status.PENDING]


async def test_an_erp_without_its_own_dead_letter_table_can_be_released(engine: AsyncEngine) -> None:
    """Only our own worker writes that table; a controller of the ERP's workers never reads it."""
    async with engine.begin() as tx:
        await tx.execute(text("DROP TABLE tds_dead_letter_queue"))
    assert (await obstacles(engine, CONTROLLER_NEEDS)).sentence() == ""
