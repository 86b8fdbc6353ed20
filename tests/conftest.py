"""What every test may ask for: a real PostgreSQL for the session, and a fresh database for each test."""

from __future__ import annotations

import gc
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.database.migrate import upgrade
from handlers.environment import last_good, load, references
from handlers.erp.adopt import adopt
from handlers.release import settings
from handlers.zoho import oauth
from rehearsal.postgres import Postgres
from tests import process_state
from tests.run_folder import Run


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder, with whose end everything ends that was started in it; workers inherit it."""
    # By default the collector walks thousands of tests and modules again and again: it was most of the time that the
    # look at the process takes before and after each test (20 ms, 3 without).
    gc.set_threshold(20_000, 20, 10)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Run.begin())
    # Not in the user's own state folder.
    last_good.FOLDER = Path(tempfile.gettempdir()) / "kept-environments"


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Fail a test that leaves the process changed for the others, and set back what it changed.

    Fixtures of a module or a session come before this one and end after it: what they set up is theirs.
    """
    before = process_state.read()
    yield
    if changed := process_state.restore(before):
        pytest.fail(
            f"this test changed the process for all others: {', '.join(changed)}. "
            "Change it with monkeypatch, or in a process of its own.",
            pytrace=False,
        )


REMEMBERED: tuple[dict[Any, Any], ...] = (
    load._BY_NAME,
    references._LAST,
    last_good._GOOD,
    last_good._KEPT,
    settings._FROZEN,
    oauth._TOKENS,
)
"""What a process remembers of environment files, and of the tokens that it got for them."""


@contextmanager
def _forgotten() -> Iterator[None]:
    known = [dict(memory) for memory in REMEMBERED]
    yield
    for memory, before in zip(REMEMBERED, known, strict=True):
        memory.clear()
        memory.update(before)


@pytest.fixture(autouse=True, scope="module")
def environment_files_of_a_module_forgotten() -> Iterator[None]:
    """Forget the environment files that the fixtures of a module loaded."""
    with _forgotten():
        yield


@pytest.fixture(autouse=True)
def environment_files_forgotten(process_as_before: None) -> Iterator[None]:
    """Forget the environment files that a test loaded: another may have one of the same name."""
    with _forgotten():
        yield


def engine_for(url: str) -> AsyncEngine:
    """An engine on *url*, made the way the core makes its own."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=10,
        connect_args={"timeout": 10, "server_settings": {"timezone": "UTC"}},
    )


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL server for the whole session. Tests that break a server start one of their own."""
    server = Postgres.start(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def erp_template(postgres: Postgres) -> str:
    """A database with the ERP's own tables only, as we find it before the first `runbook db adopt`."""
    url = await postgres.create_database("template_erp")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(files("rehearsal").joinpath("erp.sql").read_text(encoding="utf-8"))
    finally:
        await connection.close()
    return "template_erp"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def adopted_template(postgres: Postgres, erp_template: str) -> str:
    """A database with the ERP's tables adopted and the ledger migrated: what the core works on."""
    url = await postgres.create_database("template_adopted", template=erp_template)
    engine = engine_for(url)
    try:
        await adopt(engine)
        await upgrade(engine)
    finally:
        await engine.dispose()
    return "template_adopted"


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(postgres: Postgres, adopted_template: str) -> AsyncIterator[str]:
    """The address of a fresh database: the ERP's tables, adopted, with an empty ledger."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield await postgres.create_database(name, template=adopted_template)
    await postgres.drop_database(name)


@pytest_asyncio.fixture(loop_scope="session")
async def erp_url(postgres: Postgres, erp_template: str) -> AsyncIterator[str]:
    """The address of a fresh database with the ERP's own tables and nothing of ours."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield await postgres.create_database(name, template=erp_template)
    await postgres.drop_database(name)


@pytest_asyncio.fixture(loop_scope="session")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on the test's fresh database, disposed at its end."""
    engine = engine_for(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path, removed at the end: unix sockets may not have long names."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="tds-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
