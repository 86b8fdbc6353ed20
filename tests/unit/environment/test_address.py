"""Database addresses as hosters give them: each key is understood, or named in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handlers.environment.address import Address, parse
from handlers.environment.load import parse as parse_environment
from handlers.environment.model import Database
from handlers.environment.redact import known_secrets
from handlers.errors import ConfigError
from tests.certificates import Authority

SECRET = "s3cret-Wort"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a PG… variable nor a file of this user takes part."""
    import os

    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def checked(text: str) -> Address:
    address = parse(text)
    address.raise_if_unusable()
    return address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgres://u:p%40ss%2Fw@ec2-1.compute.amazonaws.com:5432/d1",
            {"hosts": (("ec2-1.compute.amazonaws.com", 5432),), "password": "p@ss/w", "database": "d1"},
        ),
        (
            "postgresql://doadmin:x@db.ondigitalocean.com:25060/defaultdb?sslmode=require",
            {"tls.mode": "require"},
        ),
        (
            "postgres://u:p@ep-1.aws.neon.tech/neondb?options=endpoint%3Dep-1&sslmode=require",
            {"options": "endpoint=ep-1", "hosts": (("ep-1.aws.neon.tech", 5432),)},
        ),
        (
            "host=x.postgres.database.azure.com port=5433 dbname=erp user=citus@x password='a b\\'c' sslmode=require",
            {"user": "citus@x", "password": "a b'c", "hosts": (("x.postgres.database.azure.com", 5433),)},
        ),
        ("postgresql+asyncpg://u@h/erp?ssl=require", {"tls.mode": "require"}),
        ("postgresql://u@h/erp?ssl=true", {"tls.mode": "require"}),
        ("postgresql://u@h/erp", {"tls.mode": "prefer", "hosts": (("h", 5432),), "session": "any"}),
        ("postgresql://u@h/erp?sslrootcert=system", {"tls.mode": "verify-full", "tls.root": "system"}),
        ("postgresql:///erp?host=/run/postgresql&port=5433&user=u", {"hosts": (("/run/postgresql", 5433),)}),
        ("postgresql://%2Frun%2Fpg/erp", {"hosts": (("/run/pg", 5432),)}),
        (
            "postgresql://u@[::1]:5433,h2,h3:1/erp?target_session_attrs=read-write&load_balance_hosts=random",
            {"hosts": (("::1", 5433), ("h2", 5432), ("h3", 1)), "session": "read-write", "any_order": True},
        ),
        ("postgresql://u@h1,h2/erp?port=6000", {"hosts": (("h1", 6000), ("h2", 6000))}),
        ("postgresql://u@/erp?host=h1:5432&host=h2:5433", {"hosts": (("h1", 5432), ("h2", 5433))}),
        ("postgresql://u@/erp?host=fe80::1", {"hosts": (("fe80::1", 5432),)}),
        ("postgresql://u:a@b@h/erp", {"password": "a@b", "hosts": (("h", 5432),)}),
        ("postgresql://u:a+b#c@h/erp", {"password": "a+b#c"}),
        ("postgresql://h/?dbname=erp&user=v&password=w", {"user": "v", "password": "w", "database": "erp"}),
        ("postgresql://u@h/erp?sslmode=&connect_timeout=&application_name=", {"tls.mode": "prefer"}),
        ("postgresql://u@h/erp?connect_timeout=10&application_name=a%20b", {"connect_seconds": 10.0}),
        ("postgresql://u@h/erp?connect_timeout=0", {"connect_seconds": None}),
        (
            "postgresql://u@h/erp?keepalives_idle=30&keepalives_count=3&tcp_user_timeout=9000",
            {
                "keepalive": {
                    "SO_KEEPALIVE": 1,
                    "TCP_KEEPIDLE": 30,
                    "TCP_KEEPCNT": 3,
                    "TCP_USER_TIMEOUT": 9000,
                }
            },
        ),
        ("postgresql://u@h/erp?keepalives=0&keepalives_idle=30", {"keepalive": {}}),
        ("postgresql://u@h/erp?gssencmode=disable&channel_binding=prefer&sslcompression=0&sslsni=1", {}),
        ("postgresql://u@h/erp?sslmode=verify-full&sslmode=require", {"tls.mode": "require"}),
        ("  postgresql://u@h/erp\n", {"database": "erp"}),
    ],
)
def test_forms_of_hosters_are_understood(text: str, expected: dict[str, Any]) -> None:
    """Each form means what it means for libpq."""
    address = checked(text)
    for path, value in expected.items():
        found: Any = address
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value, path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("postgresql://u@h/erp?sslmod=require", "unknown key sslmod; did you mean sslmode"),
        ("postgresql://u@h/erp?pgbouncer=true", "pgbouncer=true"),
        ("postgresql://u@h/erp?channel_binding=require&sslmode=require", "channel_binding=require"),
        ("postgresql://u@h/erp?hostaddr=1.2.3.4", "hostaddr"),
        ("postgresql://u@h/erp?schema=public", "search_path"),
        ("postgresql://u@h/erp?gssencmode=require", "gssencmode"),
        ("postgresql://u@h/erp?service=erp", "service"),
        ("postgresql://u@h/erp?sslmode=no-verify", "sslmode must be one of disable, allow"),
        ("postgresql://u@h/erp?sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
        (
            "postgresql://u@h/erp?sslmode=verify-ca&sslrootcert=/nowhere/ca.crt",
            "sslrootcert: cannot read /nowhere",
        ),
        ("postgresql://u@h/erp?sslmode=require&sslcert=/nowhere/c.crt", "sslcert: cannot read /nowhere"),
        (
            "postgresql://u@h/erp?sslmode=require&sslrootcert=system",
            "sslrootcert=system: use sslmode=verify-full",
        ),
        ("postgresql://u@h/erp?sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require"),
        ("postgresql://u@h/erp?ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version must be one of"),
        ("postgresql://u@h/erp?target_session_attrs=master", "target_session_attrs must be one of"),
        ("postgresql://u@h/erp?connect_timeout=5s", "connect_timeout must be a whole number"),
        (
            "postgresql://u@h/erp?keepalives_idle=99999",
            "keepalives_idle must be a whole number from 0 to 32767",
        ),
        ("postgresql://u@h/erp?client_encoding=LATIN1", "client_encoding must be utf8"),
        ("postgresql://u@h/erp?require_auth=scram-sha-256", "require_auth"),
        ("postgresql://u@h/erp?sslmode", "without a ="),
        ("postgresql://u@h:5432x/erp", "port that is not a number"),
        ("postgresql://u@h:70000/erp", "port must be a number from 1 to 65535"),
        ("postgresql://u@h1,h2,h3/erp?port=1,2", "2 ports for 3 hosts"),
        ("postgresql://fe80::1/erp", "IPv6 address is written in brackets"),
        ("postgresql://u@h", "no database name"),
        ("postgresql://u:%zz@h/erp", "not followed by two hexadecimal digits"),
        ("postgresql://u:%00@h/erp", "has a %00"),
        (f"postgresql://u:{SECRET}/x@h/erp", "write / as %2F"),
        (f"postgresql://u:{SECRET}?x@h/erp", "write / as %2F"),
        (f"postgresql://u@h/erp?password={SECRET}&sslmode=x", "sslmode must be one of"),
        (f"host=h dbname=erp password='{SECRET}", "key=value pairs"),
        ("jdbc:postgresql://h/erp", "must look like postgresql://"),
        ("mysql://u@h/erp", "must look like postgresql://"),
        ("", "must look like postgresql://"),
    ],
)
def test_what_is_not_understood_is_named_in_one_sentence(text: str, names: str) -> None:
    """The file is refused when it is read; the sentence has the key and no secret, and there is no traceback."""
    values: dict[str, Any] = {
        "name": "x",
        "database": {"url": text},
        "ssh": {"user": "u", "key_file": "k", "known_hosts_file": "k"},
        "hosts": [{"name": "web-1", "address": "h", "health_url": "http://h"}],
        "deploy": {"directory": "/x"},
        "services": {},
    }
    with pytest.raises(ConfigError) as caught:
        parse_environment(values, source="x.toml")
    assert str(caught.value).startswith("x.toml: database.url: ")
    assert names in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert SECRET not in str(caught.value)


def test_a_key_of_another_certificate_or_another_passphrase_is_found_when_the_file_is_read(
    tmp_path: Path,
) -> None:
    """The client's certificate is loaded once at the start, and OpenSSL never asks on the terminal."""
    authority = Authority(tmp_path, "our-ca")
    certificate, key = authority.issue("erp", passphrase="open")
    _, other = authority.issue("other")
    url = f"postgresql://u@h/erp?sslmode=require&sslcert={certificate}&sslkey="
    checked(f"{url}{key}&sslpassword=open")
    for wrong in (f"{url}{key}&sslpassword=shut", f"{url}{key}", f"{url}{other}"):
        with pytest.raises(ValueError, match="sslcert and sslkey"):
            checked(wrong)
    not_pem = tmp_path / "not.pem"
    not_pem.write_text("no certificate")
    with pytest.raises(ValueError, match=r"sslrootcert: .* has no usable PEM data"):
        checked(f"postgresql://u@h/erp?sslmode=verify-ca&sslrootcert={not_pem}")


def test_variables_fill_in_for_missing_keys_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE holds where the address has no sslmode; a bad value names the variable."""
    monkeypatch.setenv("PGSSLMODE", "require")
    assert parse("postgresql://u@h/erp").tls.mode == "require"
    assert parse("postgresql://u@h/erp?sslmode=disable").tls.mode == "disable"
    monkeypatch.setenv("PGSSLMODE", "always")
    with pytest.raises(ValueError, match="PGSSLMODE must be one of"):
        parse("postgresql://u@h/erp")


def test_a_password_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the printed address nor in its repr, wherever it was written; and reports mask it."""
    for url in (f"postgresql://u:{SECRET}@h/erp", f"postgresql://u@h/erp?password={SECRET}"):
        database = Database(url=url)
        assert SECRET not in database.shown() + repr(database.address())
        assert database.shown() == "postgresql://u@h:5432/erp"
    environment = parse_environment(
        {
            "name": "x",
            "database": {"url": f"postgresql://u@h/erp?password={SECRET}&sslpassword=other-secret"},
            "ssh": {"user": "u", "key_file": "k", "known_hosts_file": "k"},
            "hosts": [{"name": "web-1", "address": "h", "health_url": "http://h"}],
            "deploy": {"directory": "/x"},
            "services": {},
        },
        source="x",
    )
    assert {SECRET, "other-secret"} <= known_secrets(environment)
