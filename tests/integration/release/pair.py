"""Two environments, staging and production: two files in one folder, two databases, each with its own ledger."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.host.ssh_target import CLOSED_PORT

PLACE = """name = "{name}"
[database]
url = "{url}"
connect_seconds = 2
[ssh]
user = "x"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
port = {port}
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
web = ["tsh-erp"]
"""
PROMOTION = """[promotion]
environment = "staging"
max_age_hours = 24
override_people = ["ops-a"]
"""


@dataclass(kw_only=True)
class Pair:
    """Two environments whose files lie in one folder."""

    folder: Path
    staging: AsyncEngine
    """On staging's database."""
    staging_url: str

    @classmethod
    @asynccontextmanager
    async def make(
        cls, folder: Path, production_url: str, postgres: Postgres, template: str
    ) -> AsyncIterator[Pair]:
        """Production on a database that is there, staging on one of its own."""
        name = f"staging_{uuid.uuid4().hex[:12]}"
        url = await postgres.create_database(name, template=template)
        pair = cls(folder=folder, staging=engine_for(url), staging_url=url)
        pair.write("staging", url)
        pair.write("production", production_url)
        try:
            yield pair
        finally:
            await pair.staging.dispose()
            await postgres.drop_database(name)

    def write(self, name: str, url: str, more: str = "") -> None:
        """The file of an environment."""
        text = PLACE.format(name=name, url=url, port=CLOSED_PORT) + more
        (self.folder / f"{name}.toml").write_text(text, encoding="utf-8")

    @property
    def production(self) -> Environment:
        """Production as its file is now."""
        return load_environment(str(self.folder / "production.toml"))
