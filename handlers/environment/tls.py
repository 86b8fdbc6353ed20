"""TLS settings of a connection to the database, as libpq understands them, and the contexts made from them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SYSTEM = "system"
"""The value of sslrootcert that means the CA certificates of the operating system."""
_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
VERSIONS = tuple(_VERSIONS)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What `sslmode` and the keys beside it ask for. A file is None when the key is missing."""

    mode: str = "prefer"
    root: str | None = None
    """The CA file, or `system`."""
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    revoked: str | None = None
    revoked_directory: str | None = None
    minimum: str = "TLSv1.2"
    maximum: str | None = None
    direct: bool = False
    """Whether TLS begins at once (sslnegotiation=direct), without asking the server first."""

    @property
    def required(self) -> bool:
        """Whether a connection without TLS is refused."""
        return MODES.index(self.mode) >= MODES.index("require")

    def context(self) -> ssl.SSLContext:
        """A context for these settings. Raises ValueError with a sentence that names the key of a bad file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # libpq: with a CA file, `require` verifies the certificate as verify-ca does.
        if self.root is not None and self.required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.check_hostname = self.mode == "verify-full"
            self._trust(context, self.root)
        if self.certificate is not None:
            self._present(context, self.certificate)
        context.minimum_version = _VERSIONS[self.minimum]
        if self.maximum is not None:
            context.maximum_version = _VERSIONS[self.maximum]
        context.set_alpn_protocols(["postgresql"])
        return context

    def _trust(self, context: ssl.SSLContext, root: str) -> None:
        if root == SYSTEM:
            context.set_default_verify_paths()
        else:
            with _explained("sslrootcert", root):
                context.load_verify_locations(cafile=root)
        if self.revoked is not None:
            with _explained("sslcrl", self.revoked):
                context.load_verify_locations(cafile=self.revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if self.revoked_directory is not None:
            with _explained("sslcrldir", self.revoked_directory):
                context.load_verify_locations(capath=self.revoked_directory)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

    def _present(self, context: ssl.SSLContext, certificate: str) -> None:
        with _explained("sslcert", certificate), open(certificate, "rb"):
            pass
        if self.key is not None:
            with _explained("sslkey", self.key), open(self.key, "rb"):
                pass
        try:
            # Without the function OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(certificate, self.key, password=lambda: self.key_password or "")
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                f"sslcert and sslkey: {certificate} and {self.key or 'its key'} cannot be used together "
                f"({_reason(error)}); sslpassword is the passphrase of an encrypted key"
            ) from error


@contextmanager
def _explained(key: str, path: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ValueError(f"{key}: {path} has no usable PEM data ({_reason(error)})") from error
    except OSError as error:
        raise ValueError(f"{key}: cannot read {path}: {error.strerror}") from error


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or "unknown format").replace("_", " ").lower()
