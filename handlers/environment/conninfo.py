"""A database address as text, split into libpq's keys: both its URL form and its `key=value` form.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING describes both. Nothing here interprets a
value, and no message contains one: it could be the password.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

EXAMPLE = "postgresql://user@host:5432/name"
_SCHEME = re.compile(r"^(postgres|postgresql)(\+[a-z0-9_]+)?://", re.IGNORECASE)
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")
_HOSTS_WITH_PORTS = re.compile(r"[^:,/]+:\d+(,[^:,/]+:\d+)*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODE = "write / as %2F, ? as %3F, @ as %40 and % as %25 in a user name or password"


def split(text: str) -> dict[str, str]:
    """The keys and values of a database address. The hosts and ports of a list are joined with commas.

    Empty values are left out: for libpq they mean the default. Raises ValueError with a sentence.
    """
    text = text.strip()
    scheme = _SCHEME.match(text)
    if scheme:
        pairs = _split_url(text[scheme.end() :])
    elif "://" not in text and _PAIR.match(text):
        pairs = _split_pairs(text)
    else:
        raise ValueError(f"must look like {EXAMPLE}")
    return {key: value for key, value in pairs.items() if value}


def _split_url(rest: str) -> dict[str, str]:
    before, _, query = rest.partition("?")
    authority, _, database = before.partition("/")
    # The last @, because a host has none and a password may.
    credentials, at, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    if not at and "@" in before + query:
        raise ValueError(f"has no host before its first / or ?; {_ENCODE}")
    pairs = {"user": _decoded(user), "password": _decoded(password), "dbname": _decoded(database)}
    pairs["host"], pairs["port"] = _hosts(hosts)
    for word in filter(None, query.split("&")):
        key, equals, value = word.partition("=")
        key = _decoded(key)
        if not equals:
            # Not shown: it may be a part of a password that has an & in it.
            raise ValueError("has a word after ? without a =: write KEY=VALUE, and & as %26 in a value")
        if key == "host" and pairs["host"] and query.count("host=") > 1 and not hosts:
            # The form of SQLAlchemy: a host=NAME:PORT for each host.
            value = f"{pairs['host']},{value}"
        pairs[key] = _decoded(value)
    if not hosts and _HOSTS_WITH_PORTS.fullmatch(pairs["host"]):
        pairs["host"], pairs["port"] = _hosts(pairs["host"])
    return pairs


def _hosts(text: str) -> tuple[str, str]:
    """The hosts and the ports of `host:port,[ipv6]:port`, each joined with commas; a missing port is empty."""
    hosts, ports = [], []
    for entry in text.split(","):
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", entry)
        if bracketed:
            host, port = bracketed[1], bracketed[2] or ""
        else:
            host, _, port = entry.partition(":")
        if port and not (port.isascii() and port.isdigit()):
            raise ValueError(
                "has a port that is not a number; an IPv6 address is written in brackets ([::1]:5432), "
                f"and {_ENCODE}"
            )
        hosts.append(_decoded(host))
        ports.append(port)
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _split_pairs(text: str) -> dict[str, str]:
    pairs = {}
    position = 0
    while position < len(text.rstrip()):
        found = _PAIR.match(text, position)
        if found is None:
            raise ValueError("must be written as key=value pairs, with values that contain spaces in '…'")
        value = found[2] if found[2] is not None else found[3]
        pairs[found[1]] = re.sub(r"\\(.)", r"\1", value)
        position = found.end()
    return pairs


def _decoded(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError("has a % that is not followed by two hexadecimal digits; write % as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a percent-encoded character that is not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("has a %00")
    return decoded
