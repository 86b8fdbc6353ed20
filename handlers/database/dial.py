"""One connection to PostgreSQL by asyncpg, with libpq's meaning of a list of hosts, of TLS and of keepalive."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from urllib.parse import urlencode

import asyncpg

from handlers.database.pooler import Connect, is_pooled
from handlers.environment.address import Address
from handlers.environment.tls import Tls
from handlers.errors import LoginRefused

_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError)
"""TLS errors that mean a lost connection, and say nothing about the settings."""
_NEXT_HOST = (
    *(OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError),
    asyncpg.TargetServerAttributeNotMatched,
)
"""Errors after which the next host of a list is tried."""
_STARTUP_PARAMETER = "startup parameter"
"""pgbouncer's words for a setting that it does not pass on; like every refusal of its own it has the code 08P01."""
_NEVER = (_STARTUP_PARAMETER, "no such", "not allowed")
"""Words of a pooler's refusal that no retry cures; with any other it may be able to connect in a moment."""
_TAKEN_BY_POOLERS = ("application_name", "timezone")
_NO_TLS = "rejected SSL upgrade"
"""asyncpg's words for a server that answers the request for TLS with no."""


async def dial(
    address: Address,
    *,
    connect_seconds: float,
    statement_seconds: float,
    server_settings: Mapping[str, str],
) -> asyncpg.Connection:
    """Connect to the first host of *address* that answers and has the wanted state.

    *connect_seconds* is for each host. As for libpq, an answer that refuses the login ends the search. Raises
    LoginRefused when TLS or a pooler cannot work, OSError or TimeoutError when no host answers, and otherwise asyncpg's
    own error.
    """
    tls, tls_keys = _tls_arguments(address)
    hosts = list(address.hosts)
    if address.any_order:
        random.shuffle(hosts)
    # libpq: without any standby, prefer-standby takes every host.
    rounds = ("standby", "any") if address.session == "prefer-standby" else (address.session,)
    failed: list[Exception] = []
    for session, (host, port) in itertools.product(rounds, hosts):
        connect = partial(
            asyncpg.connect,
            dsn=tls_keys,
            host=host,
            port=port,
            user=address.user,
            password=address.password,
            passfile=address.passfile,
            database=address.database,
            ssl=tls,
            direct_tls=address.tls.direct,
            target_session_attrs=session,
            timeout=connect_seconds,
            command_timeout=statement_seconds,
        )
        try:
            connection = await _connected(connect, server_settings)
            async with asyncio.timeout(2 * connect_seconds):
                if await is_pooled(connection, connect, f"{host}:{port}"):
                    await _set(connection, server_settings)
        except _NEXT_HOST as error:
            failed.append(_explained(error, host, port, address))
        else:
            _tune(connection, address.keepalive)
            return connection
    raise _of_all(failed)


async def _connected(connect: Connect, settings: Mapping[str, str]) -> asyncpg.Connection:
    """Connect with *settings*. A pooler may take only some of them at the start."""
    try:
        return await connect(server_settings=dict(settings))
    except asyncpg.ProtocolViolationError as error:
        if _STARTUP_PARAMETER not in str(error) or "options" in settings:
            raise
    return await connect(
        server_settings={name: value for name, value in settings.items() if name in _TAKEN_BY_POOLERS}
    )


async def _set(connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
    """Set what a pooler did not take at the start, or left out. Only for a session of our own."""
    calls = [
        f"set_config('{name}', '{value}', false)"
        for name, value in settings.items()
        if name not in (*_TAKEN_BY_POOLERS, "options")
    ]
    if calls:
        await connection.execute(f"SELECT {', '.join(calls)}")


def _tls_arguments(address: Address) -> tuple[ssl.SSLContext | bool | str, str | None]:
    """asyncpg's argument `ssl`, and the keys from which it makes a context of its own.

    For `allow` and `prefer` asyncpg makes the context, because it must also connect without TLS.
    """
    tls = address.tls
    if tls.mode == "disable":
        return False, None
    try:
        context = tls.context()
    except ValueError as error:
        raise LoginRefused(f"the database {address.shown()}: {error}") from error
    if tls.required:
        return context, None
    return tls.mode, f"postgresql://?{urlencode(_tls_keys(tls))}"


def _tls_keys(tls: Tls) -> dict[str, str]:
    keys = {
        "sslcert": tls.certificate,
        "sslkey": tls.key,
        "sslpassword": tls.key_password,
        "ssl_min_protocol_version": tls.minimum,
        "ssl_max_protocol_version": tls.maximum,
    }
    return {key: value for key, value in keys.items() if value}


def _explained(error: Exception, host: str, port: int, address: Address) -> Exception:
    """*error* with the host in its text; LoginRefused when no retry can help."""
    where = f"the database {address.shown()}" if len(address.hosts) == 1 else f"the database at {host}:{port}"
    match error:
        case ssl.SSLCertVerificationError():
            fault = _certificate_fault(error, host)
            return LoginRefused(f"{where} has a TLS certificate that is refused: {fault}")
        case ssl.SSLError() if not isinstance(error, _CUT_OFF):
            reason = error.reason or error
            return LoginRefused(
                f"{where}: the TLS handshake failed ({reason}); see sslmode and the keys beside it"
            )
        case ConnectionError() if _NO_TLS in str(error) and address.tls.required:
            text = f"{where} offers no TLS, and sslmode={address.tls.mode} needs it: "
            return LoginRefused(f"{text}switch TLS on in the server, or use sslmode=prefer")
        case asyncpg.ProtocolViolationError() if any(words in str(error) for words in _NEVER):
            text = "use the address of the database itself, without a pooler and `options`"
            return LoginRefused(f"{where} is behind a pooler that refuses the connection ({error}): {text}")
        case TimeoutError():
            return TimeoutError(f"{host}:{port} gave no answer in time")
        case _:
            text = _network_fault(error, host, port, address)
            return ConnectionError(text) if text else error


def _network_fault(error: Exception, host: str, port: int, address: Address) -> str:
    """What a retry may cure, in words; empty where the error's own are good."""
    text = ""
    match error:
        case asyncpg.TargetServerAttributeNotMatched():
            text = f"{host}:{port} is not {address.session} (target_session_attrs)"
        case socket.gaierror():
            text = f"no such host name: {host} ({error.strerror})"
        case ConnectionError() if _NO_TLS in str(error):
            text = f"{host}:{port} does not answer like PostgreSQL"
        case asyncpg.ProtocolViolationError():
            text = f"the pooler at {host}:{port} has no connection to give: {error}"
        case ConnectionError() if "connection_lost" in str(error):
            text = f"{host}:{port} closed the connection"
        case OSError() if not isinstance(error, ConnectionError):
            text = str(error)
        case _:
            pass
    return text


def _certificate_fault(error: ssl.SSLCertVerificationError, host: str) -> str:
    reason = error.verify_message or str(error)
    if "hostname" in reason.lower() or "ip address" in reason.lower():
        return f"it is not for {host}; sslmode=verify-ca does not compare names"
    if "expired" in reason:
        return "it has expired"
    return f"{reason}; sslrootcert must name the file of the CA that issued it"


def _of_all(failed: list[Exception]) -> Exception:
    """One error for all hosts: LoginRefused only when every one is, because another may be back in a moment."""
    if len(failed) == 1 or all(isinstance(error, LoginRefused) for error in failed):
        return failed[0]
    reasons = dict.fromkeys(str(error) or type(error).__name__ for error in failed)
    return ConnectionError(f"no host of the list is usable: {'; '.join(reasons)}")


def _tune(connection: asyncpg.Connection, keepalive: Mapping[str, int]) -> None:
    # asyncpg has no public way to its socket.
    transport = getattr(connection, "_transport", None)
    open_socket = transport.get_extra_info("socket") if transport is not None else None
    if open_socket is None or open_socket.family == socket.AF_UNIX:
        return
    for name, value in keepalive.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):
            open_socket.setsockopt(level, getattr(socket, name), value)
