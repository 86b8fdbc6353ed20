"""Which certificates of https addresses are trusted: those of the system's CAs, and of a file of ours."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

import httpx


def https_context(ca_file: Path | None, *, key: str = "probe.ca_file") -> ssl.SSLContext:
    """A context that trusts the system's CAs (SSL_CERT_FILE and SSL_CERT_DIR replace them) and *ca_file* as well.

    Raises ValueError with a sentence for a file that cannot be used; *key* is the one of the environment file.
    """
    variables = tuple(os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    try:
        # A file that was replaced is read again: a step may make a client every second.
        changed = ca_file.stat().st_mtime_ns if ca_file is not None else 0
        return _context(ca_file, changed, variables)
    except ssl.SSLError as error:
        raise ValueError(f"{key}: {ca_file} has no certificate in PEM form") from error
    except OSError as error:
        raise ValueError(f"{key}: cannot read {ca_file}: {error.strerror}") from error


@lru_cache(maxsize=8)
def _context(ca_file: Path | None, _changed: int, variables: tuple[str, ...]) -> ssl.SSLContext:
    if any(variables):
        # OpenSSL reads them by itself.
        context = ssl.create_default_context()
    else:
        # The CAs that httpx brings, for machines without a store of their own.
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()
    # Newer Pythons ask for extensions that the certificates of many own CAs do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    return context
