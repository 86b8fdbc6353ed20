"""A database address with libpq's keys understood, or refused in one sentence that names the key.

Hosters give addresses in libpq's form. asyncpg knows only a part of its keys, so each key is either translated here or
refused when the address is read. Where a key is missing, its PG… variable holds, as for libpq.
"""

from __future__ import annotations

import difflib
import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from handlers.environment import conninfo
from handlers.environment.tls import MODES, SYSTEM, VERSIONS, Tls

_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "options": "PGOPTIONS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "require_auth": "PGREQUIREAUTH",
}
_HOME_FILES = {
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
}
"""Files in ~/.postgresql that libpq uses where the key is missing and the file exists."""
_CHOICES = {
    "sslmode": MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": VERSIONS,
    "ssl_max_protocol_version": VERSIONS,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
    "keepalives": ("1", "0"),
}
_NUMBERS_MAX = {
    "connect_timeout": 3600,
    "keepalives_idle": 32767,
    "keepalives_interval": 32767,
    "keepalives_count": 127,
    "tcp_user_timeout": 2**31 - 1,
}
"""The largest value of each number: the kernel refuses a larger one."""
_WITHOUT_EFFECT = {
    "channel_binding": ("prefer", "disable"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8", "auto", "unicode"),
    "gssencmode": ("prefer", "disable"),
    "gssdelegation": ("0",),
    "sslcompression": ("0", "1"),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
    "replication": ("false", "off", "no", "0"),
    "min_protocol_version": ("3.0",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "pgbouncer": ("false",),
}
"""Keys whose listed values are what happens anyway; every other value is refused."""
_WHY = {
    "channel_binding": "remove it and use sslmode=verify-full&sslrootcert=system, which also refuses a false server",
    "pgbouncer": "use the address of the database itself: a pooler in transaction mode loses locks and LISTEN",
    "hostaddr": "write the IP address as the host",
    "schema": "use options=-c%20search_path%3DNAME",
    "service": "write its host, port and database into the address",
    "gssencmode": "GSSAPI is not supported",
    "krbsrvname": "GSSAPI is not supported",
    "gsslib": "GSSAPI is not supported",
    "require_auth": "this client cannot choose the login method",
    "requirepeer": "this client does not check the owner of a socket",
    "connection_limit": "use database.pool_size",
    "pool_timeout": "use database.pool_size",
}
"""Why a key or its value is refused, and what to use instead."""
_DEFAULT_HOSTS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")
_UNDERSTOOD = frozenset(_VARIABLES) - {"channel_binding", "gssencmode", "require_auth"} | {
    *("dbname", "application_name", "fallback_application_name", "sslpassword"),
    *_CHOICES, *_NUMBERS_MAX,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a database is, and how to connect to it. Times are seconds."""

    hosts: tuple[tuple[str, int], ...]
    """Host (or the folder of a Unix socket) and port, in the order in which they are tried."""
    user: str
    database: str
    tls: Tls
    password: str | None = field(default=None, repr=False)
    passfile: str | None = None
    any_order: bool = False
    """Whether the hosts are tried in random order."""
    session: str = "any"
    """target_session_attrs: the state that a host must have, such as read-write."""
    application_name: str | None = None
    options: str | None = None
    """Command-line options for the server session, such as `-c search_path=erp`."""
    connect_seconds: float | None = None
    """The connect timeout for each host; None for the caller's own."""
    keepalive: Mapping[str, int] = field(default_factory=dict)
    """Socket options by their name in the module `socket`; empty without TCP keepalive."""

    def raise_if_unusable(self) -> None:
        """Raise ValueError, with the key, for a TLS file that cannot be used. libpq ignores them for Unix sockets."""
        if self.tls.mode != "disable" and not all(host.startswith("/") for host, _ in self.hosts):
            self.tls.context()

    def shown(self) -> str:
        """The address without password and keys, for messages."""
        default = tuple(host for host, _ in self.hosts) == _DEFAULT_HOSTS
        hosts = "" if default else ",".join(_shown_host(host, port) for host, port in self.hosts)
        return f"postgresql://{quote(self.user)}@{hosts}/{quote(self.database)}"


def parse(text: str, *, password: str | None = None) -> Address:
    """Read an address. *password* replaces the one in it.

    Raises ValueError with a sentence that names the key and never contains a secret.
    """
    keys = _renamed(conninfo.split(text))
    for key, value in keys.items():
        _raise_if_bad(key, value, key)
    keys = _with_variables(keys)
    if "dbname" not in keys:
        raise ValueError(f"has no database name: it must look like {conninfo.EXAMPLE}")
    return Address(
        hosts=_hosts(keys),
        user=keys.get("user") or _own_user(),
        database=keys["dbname"],
        password=password or keys.get("password"),
        passfile=keys.get("passfile"),
        tls=_tls(keys),
        any_order=keys.get("load_balance_hosts") == "random",
        session=keys.get("target_session_attrs", "any"),
        application_name=keys.get("application_name"),
        options=keys.get("options"),
        connect_seconds=float(keys.get("connect_timeout", 0)) or None,
        keepalive=_keepalive(keys),
    )


def _renamed(keys: Mapping[str, str]) -> dict[str, str]:
    """The keys under libpq's names: `database`, `ssl` and `requiressl` are in use as well."""
    renamed = dict(keys)
    if (database := renamed.pop("database", None)) is not None:
        renamed["dbname"] = database
    if (ssl := renamed.pop("ssl", None)) is not None:
        renamed.setdefault("sslmode", {"true": "require", "false": "disable"}.get(ssl, ssl))
    if (required := renamed.pop("requiressl", None)) is not None:
        renamed.setdefault("sslmode", "require" if required == "1" else "prefer")
    return renamed


def _raise_if_bad(key: str, value: str, name: str) -> None:
    """Raise ValueError for a key or a value that cannot be understood. *name* is the key, or the variable."""
    if key in _WITHOUT_EFFECT and value in _WITHOUT_EFFECT[key]:
        return
    if key in _WHY:
        raise ValueError(f"{name}={value} is not supported: {_WHY[key]}")
    if key in _WITHOUT_EFFECT:
        raise ValueError(f"{name} must be {' or '.join(_WITHOUT_EFFECT[key])}")
    if key not in _UNDERSTOOD:
        near = difflib.get_close_matches(key, _UNDERSTOOD, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"has the unknown key {name}{hint}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise ValueError(f"{name} must be one of {', '.join(_CHOICES[key])}")
    if key in _NUMBERS_MAX and not (value.isdecimal() and int(value) <= _NUMBERS_MAX[key]):
        raise ValueError(f"{name} must be a whole number from 0 to {_NUMBERS_MAX[key]}")


def _with_variables(keys: dict[str, str]) -> dict[str, str]:
    set_ = {key: os.environ[name] for key, name in _VARIABLES.items() if os.environ.get(name)}
    for key, value in set_.items():
        if key not in keys:
            _raise_if_bad(key, value, _VARIABLES[key])
    return {**set_, **keys}


def _hosts(keys: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    hosts = keys["host"].split(",") if "host" in keys else list(_DEFAULT_HOSTS)
    ports = keys.get("port", "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ValueError(f"port: {len(ports)} ports for {len(hosts)} hosts")
    pairs = []
    for host, port in zip(hosts, ports, strict=True):
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError("port must be a number from 1 to 65535")
        pairs.append((host or "localhost", int(port or 5432)))
    return tuple(pairs)


def _tls(keys: Mapping[str, str]) -> Tls:
    files = {key: _file(key, keys) for key in (*_HOME_FILES, "sslcrldir")}
    mode = keys.get("sslmode")
    if files["sslrootcert"] == SYSTEM and mode not in (None, "verify-full"):
        raise ValueError(f"sslmode={mode} may not be used with sslrootcert=system: use sslmode=verify-full")
    mode = mode or ("verify-full" if files["sslrootcert"] == SYSTEM else "prefer")
    if mode.startswith("verify") and files["sslrootcert"] is None:
        raise ValueError(f"sslmode={mode} needs sslrootcert: the file of the CA's certificate, or system")
    tls = Tls(
        mode=mode,
        root=files["sslrootcert"],
        certificate=files["sslcert"],
        key=files["sslkey"] if files["sslcert"] else None,
        key_password=keys.get("sslpassword"),
        revoked=files["sslcrl"],
        revoked_directory=files["sslcrldir"],
        minimum=keys.get("ssl_min_protocol_version", "TLSv1.2"),
        maximum=keys.get("ssl_max_protocol_version"),
        direct=keys.get("sslnegotiation") == "direct",
    )
    if tls.direct and not tls.required:
        raise ValueError("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full")
    return tls


def _file(key: str, keys: Mapping[str, str]) -> str | None:
    if key in keys:
        value = keys[key]
        return value if value == SYSTEM and key == "sslrootcert" else str(Path(value).expanduser())
    try:
        file = Path.home() / ".postgresql" / _HOME_FILES[key] if key in _HOME_FILES else None
    except RuntimeError:
        return None
    return str(file) if file is not None and file.is_file() else None


def _keepalive(keys: Mapping[str, str]) -> dict[str, int]:
    if keys.get("keepalives") == "0":
        return {}
    names = {
        "TCP_KEEPIDLE": "keepalives_idle",
        "TCP_KEEPINTVL": "keepalives_interval",
        "TCP_KEEPCNT": "keepalives_count",
        "TCP_USER_TIMEOUT": "tcp_user_timeout",
    }
    # For libpq, 0 is the default of the system.
    values = {name: int(keys.get(key, 0)) for name, key in names.items()}
    return {"SO_KEEPALIVE": 1, **{name: value for name, value in values.items() if value}}


def _own_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ValueError(f"has no user: it must look like {conninfo.EXAMPLE}") from None


def _shown_host(host: str, port: int) -> str:
    if host.startswith("/"):
        return quote(host, safe="")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
