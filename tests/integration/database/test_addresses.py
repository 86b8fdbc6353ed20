"""Connections by the addresses of hosters, to a real PostgreSQL with TLS and an own CA."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from handlers.database.engine import EngineSettings, make_engine, worker_engine
from handlers.database.transaction import transaction
from handlers.environment.model import Database
from handlers.errors import DatabaseDown, Refused
from rehearsal.postgres import Postgres, free_port
from tests.certificates import Authority

ROOT = Path(__file__).parents[3]
_HBA = """
local all all trust
hostssl all certified 127.0.0.1/32 cert
hostnossl all plain 127.0.0.1/32 scram-sha-256
hostssl all sealed 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 scram-sha-256
"""


@dataclass
class Place:
    """A server with TLS, its CA, and another CA that it does not use."""

    server: Postgres
    authority: Authority
    folder: Path
    sockets: Path

    def url(self, keys: str = "", *, user: str = "postgres", hosts: str = "") -> str:
        hosts = hosts or f"localhost:{self.server.port}"
        return f"postgres://{user}:{self.server.password}@{hosts}/postgres?{keys}"

    def reload(self) -> None:
        assert self.server.process
        self.server.process.send_signal(signal.SIGHUP)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for the module; its certificate is for `localhost` only."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "our-ca")
    certificate, key = authority.issue("server", ["localhost"])
    sockets = Path(tempfile.mkdtemp(prefix="tds-"))
    with pytest.MonkeyPatch.context() as patch:
        binaries = _with_tls()
        patch.setattr("rehearsal.postgres.binaries", lambda: binaries)
        server = Postgres.create(
            folder / "postgres",
            settings={
                "ssl": "on",
                "ssl_cert_file": str(certificate),
                "ssl_key_file": str(key),
                "ssl_ca_file": str(authority.file),
                "unix_socket_directories": str(sockets),
            },
        )
        (server.folder / "data/pg_hba.conf").write_text(_HBA)
        server.launch()
    asyncio.run(_make_users(server))
    yield Place(server=server, authority=authority, folder=folder, sockets=sockets)
    server.stop()
    sockets.rmdir()


def _with_tls() -> Path:
    """The newest PostgreSQL of the system: the one in the wheel is built without TLS."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        pytest.skip("no PostgreSQL with TLS on this machine: install the package postgresql")
    return max(found, key=lambda path: int(path.parent.name))


async def _make_users(server: Postgres) -> None:
    for name in ("plain", "sealed", "certified"):
        await server._administer(f"CREATE USER {name} PASSWORD '{server.password}'")


_SHOWN = (
    "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls, current_user::text AS"
    " name, current_setting('search_path') AS path, current_setting('application_name') AS application,"
    " current_setting('TimeZone') AS zone, inet_server_addr() IS NULL AS local"
)


async def connected(url: str, seconds: float = 5) -> dict[str, object]:
    """What a session is that was opened with *url*."""
    settings = EngineSettings(
        application_name="ours", pool_size=1, connect_seconds=seconds, statement_seconds=5
    )
    engine = make_engine(url, settings)
    try:
        async with transaction(engine) as tx:
            return dict((await tx.execute(text(_SHOWN))).mappings().one())
    finally:
        await engine.dispose()


async def refusal(url: str) -> str | None:
    """The sentence with which a connection is refused; None when it is not."""
    try:
        await connected(url)
    except Refused as error:
        return str(error)
    return None


class TestTls:
    async def test_sslmode_means_what_it_means_for_libpq(self, place: Place) -> None:
        """disable is plain, allow is plain where the server permits it, prefer and above are encrypted."""
        tls = {}
        for mode in ("disable", "allow", "prefer", "require"):
            tls[mode] = (await connected(place.url(f"sslmode={mode}")))["tls"]
        assert tls == {"disable": False, "allow": False, "prefer": True, "require": True}
        assert (await connected(place.url()))["tls"] is True
        assert (await connected(place.url("sslmode=allow", user="sealed")))["tls"] is True
        assert (await connected(place.url("sslmode=prefer", user="plain")))["tls"] is False
        with pytest.raises(Refused, match="refused the login"):
            await connected(place.url("sslmode=require", user="plain"))

    async def test_a_certificate_is_verified_as_asked(self, place: Place) -> None:
        """verify-ca asks who issued it, verify-full also for whom; require verifies when it has a CA file."""
        ca, other = place.authority.file, Authority(place.folder, "other-ca").file
        by_number = f"127.0.0.1:{place.server.port}"
        for mode in ("require", "verify-ca", "verify-full"):
            assert (await connected(place.url(f"sslmode={mode}&sslrootcert={ca}")))["tls"] is True
            with pytest.raises(Refused, match="sslrootcert must name the file of the CA"):
                await connected(place.url(f"sslmode={mode}&sslrootcert={other}"))
        await connected(place.url(f"sslmode=verify-ca&sslrootcert={ca}", hosts=by_number))
        with pytest.raises(Refused, match=r"not for 127\.0\.0\.1; sslmode=verify-ca does not compare names"):
            await connected(place.url(f"sslmode=verify-full&sslrootcert={ca}", hosts=by_number))
        with pytest.raises(Refused, match="sslrootcert must name"):
            await connected(place.url("sslrootcert=system"))

    async def test_an_expired_certificate_is_named(self, place: Place) -> None:
        """A server certificate that has expired is refused with that word; without verification it serves."""
        ca = place.authority.file
        place.authority.issue("server", ["localhost"], days=-1)
        try:
            place.reload()
            fault = None
            for _ in range(400):  # until the server has read its new files
                if fault := await refusal(place.url(f"sslmode=verify-full&sslrootcert={ca}")):
                    break
                await asyncio.sleep(0.05)
            assert fault is not None
            assert "it has expired" in fault
            await connected(place.url("sslmode=require"))
        finally:
            place.authority.issue("server", ["localhost"])
            place.reload()

    async def test_a_client_certificate_with_a_passphrase_logs_in(self, place: Place) -> None:
        """sslcert, sslkey and sslpassword are the login; without them it is refused."""
        certificate, key = place.authority.issue("certified", passphrase="open it")
        keys = f"sslcert={certificate}&sslkey={key}&sslpassword=open%20it"
        for mode in ("prefer", "require"):
            session = await connected(place.url(f"sslmode={mode}&{keys}", user="certified"))
            assert session["name"] == "certified"
            with pytest.raises(Refused, match="refused the login"):
                await connected(place.url(f"sslmode={mode}", user="certified"))

    async def test_a_server_without_tls_refuses_require(self, postgres: Postgres) -> None:
        """The sentence says what to do, and prefer works without TLS."""
        url = postgres.url()
        with pytest.raises(Refused, match=r"offers no TLS, and sslmode=require needs it.*sslmode=prefer"):
            await connected(f"{url}?sslmode=require")
        assert (await connected(f"{url}?sslmode=prefer"))["tls"] is False


class TestOtherKeys:
    async def test_options_and_application_name_reach_the_session(self, place: Place) -> None:
        """Ours win where both set the same: the time zone is always UTC."""
        options = "-c%20search_path%3Derp%20-c%20timezone%3DAsia%2FBaghdad"
        session = await connected(place.url(f"options={options}&application_name=theirs"))
        assert (session["path"], session["application"], session["zone"]) == ("erp", "theirs", "UTC")
        assert (await connected(place.url()))["application"] == "ours"

    async def test_a_socket_folder_is_a_host(self, place: Place) -> None:
        """In the query and percent-encoded, also with a sslmode, which holds for TCP only."""
        encoded = str(place.sockets).replace("/", "%2F")
        port = place.server.port
        for url in (
            f"postgresql:///postgres?user=postgres&host={place.sockets}&port={port}",
            f"postgresql://postgres@{encoded}:{port}/postgres?sslmode=require",
            f"host={place.sockets} port={port} dbname=postgres user=postgres",
        ):
            assert (await connected(url))["local"] is True

    async def test_the_next_host_is_tried_with_a_timeout_of_its_own(self, place: Place) -> None:
        """One host refuses, one never answers, the third is used."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            hosts = f"127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},localhost:{place.server.port}"
            session = await connected(place.url("target_session_attrs=read-write", hosts=hosts), seconds=0.5)
        assert session["local"] is False

    async def test_a_host_in_another_state_is_passed_over(self, place: Place) -> None:
        """With read-write a read-only server is away, not a reason to give up; prefer-standby takes what there is."""
        await connected(place.url("target_session_attrs=prefer-standby"))
        with pytest.raises(DatabaseDown, match=r"is not standby \(target_session_attrs\)"):
            await connected(place.url("target_session_attrs=standby"))
        read_only = "options=-c%20default_transaction_read_only%3Don"
        with pytest.raises(DatabaseDown, match="is not read-write"):
            await connected(place.url(f"target_session_attrs=read-write&{read_only}"))

    async def test_hosts_that_are_all_away_are_named_without_the_password(self, place: Place) -> None:
        """Each host with its reason, in one error that means: wait."""
        hosts = "127.0.0.1:1,no-such-host.invalid:5432"
        with pytest.raises(DatabaseDown, match=r"no such host name: no-such-host\.invalid") as caught:
            await connected(place.url(hosts=hosts))
        assert place.server.password not in str(caught.value)

    async def test_a_password_that_was_rotated_is_used_for_the_next_connection(
        self, place: Place, tmp_path: Path
    ) -> None:
        """An engine lives as long as its worker: the file is read again for each connection."""
        file = tmp_path / "password"
        file.write_text(place.server.password)
        url = f"postgresql://sealed@localhost:{place.server.port}/postgres?sslmode=require"
        engine = worker_engine(Database.model_validate({"url": url, "password": f"file:{file}"}))
        try:
            async with transaction(engine):
                pass
            await engine.dispose()
            await place.server._administer("ALTER USER sealed PASSWORD 'another'")
            with pytest.raises(Refused, match="refused the login"):
                async with transaction(engine):
                    pass
            file.write_text("another")
            async with transaction(engine):
                pass
        finally:
            await place.server._administer(f"ALTER USER sealed PASSWORD '{place.server.password}'")
            await engine.dispose()

    async def test_keepalive_is_set_on_the_socket(self, place: Place) -> None:
        """The numbers of the address are the kernel's."""
        engine = make_engine(
            place.url("keepalives_idle=33&tcp_user_timeout=7000&sslmode=require"),
            EngineSettings(application_name="x", pool_size=1, connect_seconds=5, statement_seconds=5),
        )
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            opened = driver._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        await engine.dispose()


async def ended(*words: str, url: str, seconds: float = 30) -> tuple[int, str]:
    """The exit code and the output of a service that must end by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.cli", *words),
        env=os.environ | {"PLACE_URL": url},
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, (out + err).decode()


RECEIVE = ("receive", "--database-url", "env:PLACE_URL", "--no-signature", "--port", "0")
WORKER = ("worker", "--database-url", "env:PLACE_URL")


class TestServices:
    async def test_a_service_that_can_never_connect_does_not_start(
        self, place: Place, postgres: Postgres
    ) -> None:
        """An unknown key, TLS that cannot work, a wrong password: exit 5 with one sentence."""
        other = Authority(place.folder, "third-ca").file
        (code, unknown), (tls_code, tls), (login_code, login) = await asyncio.gather(
            ended(*RECEIVE, url=place.url("sslmod=require")),
            ended(*WORKER, url=place.url(f"sslmode=verify-ca&sslrootcert={other}")),
            ended(*RECEIVE, url=place.url().replace(place.server.password, "wrong-password")),
        )
        assert (code, tls_code, login_code) == (5, 5, 5), (unknown, tls, login)
        assert "--database-url: has the unknown key sslmod" in unknown
        assert "sslrootcert must name the file of the CA" in tls
        assert "refused the login" in login
        for output in (unknown, tls, login):
            assert "Traceback" not in output
            assert place.server.password not in output

    async def test_a_service_whose_database_is_only_away_waits(self) -> None:
        """Nothing listens yet: the worker says so and goes on trying."""
        url = f"postgres://u:geheim@127.0.0.1:{free_port()}/erp?sslmode=verify-full&sslrootcert=system"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows.cli", *WORKER),
            env=os.environ | {"PLACE_URL": url},
            cwd=ROOT,
            stderr=PIPE,
        )
        try:
            assert process.stderr
            said = b""
            async with asyncio.timeout(30):
                async for line in process.stderr:
                    said += line
                    if b"retrying in" in line:
                        break
            assert process.returncode is None
            assert b"starting, although the database" in said
            assert b"geheim" not in said
        finally:
            process.terminate()
            await process.communicate()
