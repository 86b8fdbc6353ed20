"""Whether a server's key or certificate is the recorded one; and in which order to ask the server for its keys."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence

import paramiko
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType

from handlers.errors import Refused
from handlers.host.known_hosts import KnownHost

_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *_RSA)
_CERTIFICATE = "-cert-v01@openssh.com"


def algorithms(known: Sequence[KnownHost]) -> tuple[str, ...]:
    """The host key algorithms to offer: those of the recorded keys first, so that the server's order does not matter.

    Certificates come before all others when a CA is recorded for the host.
    """
    types = {key.key_type for host in known for key in host.keys}
    plain = sorted(_ALGORITHMS, key=lambda name: ("ssh-rsa" if name in _RSA else name) not in types)
    certificates = tuple(f"{name}{_CERTIFICATE}" for name in _ALGORITHMS)
    return (*certificates, *plain) if any(host.authorities for host in known) else tuple(plain)


def raise_if_not_known(key: paramiko.PKey, known: Sequence[KnownHost], where: str, principal: str) -> None:
    """Raise Refused unless *key* is recorded, or is certified by a recorded CA for the name *principal*.

    *where* names the host in the message.
    """
    plain = key.asbytes()
    certificate = _certificate(key)
    authority = _authority_blob(certificate) if certificate is not None else None
    reason = ""
    for host in known:
        for blob in filter(None, (plain, authority)):
            if revoked := host.revoked_of(blob):
                raise Refused(
                    f"{where}: its host key {_fingerprint(blob)} is revoked in {host.file} line {revoked.line}"
                )
        if certificate is not None and authority is not None and host.authority_of(authority):
            reason = _certificate_fault(certificate, principal)
            if not reason:
                return
        if host.key_of(plain):
            return
        changed = [known for known in host.keys if known.key_type == key.get_name()]
        if changed:
            lines = ", ".join(str(known.line) for known in changed)
            raise Refused(
                f"{where}: host key changed ({_fingerprint(plain)} instead of {_fingerprint(changed[0].blob)}): "
                f"possible man-in-the-middle attack. "
                f"If the host was reinstalled, replace its key in {host.file} line {lines}."
            )
    raise Refused(_unknown(key, known, where, reason))


def _unknown(key: paramiko.PKey, known: Sequence[KnownHost], where: str, reason: str) -> str:
    file = known[0].file
    if reason:
        return f"{where}: the certificate of its host key is refused: {reason} ({file})"
    shown = f"{where} has the host key {key.get_name()} {_fingerprint(key.asbytes())}, which is not in {file}"
    if faults := [fault for host in known for fault in host.faults]:
        return f"{shown}. {faults[0]}"
    lines = [f"{line.key_type} in line {line.line}" for host in known for line in host.keys]
    if lines:
        shown += f" (only {', '.join(lines)})"
    return f"{shown}. Compare it on the host (ssh-keygen -lf on its public host key) and add it."


def _certificate(key: paramiko.PKey) -> SSHCertificate | None:
    blob = getattr(key, "public_blob", None)
    if blob is None or not blob.key_type.endswith(_CERTIFICATE):
        return None
    line = f"{blob.key_type} {base64.b64encode(blob.key_blob).decode()}"
    try:
        loaded = serialization.load_ssh_public_identity(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return loaded if isinstance(loaded, SSHCertificate) else None


def _authority_blob(certificate: SSHCertificate) -> bytes:
    text = certificate.signature_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return base64.b64decode(text.split()[1])


def _certificate_fault(certificate: SSHCertificate, principal: str) -> str:
    """Why a certificate of a recorded CA is not valid for the host; empty when it is. The rules are OpenSSH's."""
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm):
        return "its signature is not the CA's"
    principals = [name.decode(errors="replace") for name in certificate.valid_principals]
    if certificate.type is not SSHCertificateType.HOST:
        return "it is a certificate of a user, not of a host"
    if certificate.critical_options:
        return "it has critical options"
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        return "it is not valid at this time"
    # Without principals it is valid for every host.
    if principals and principal.lower() not in (name.lower() for name in principals):
        return f"it is for {', '.join(principals)}, not for {principal}"
    return ""


def _fingerprint(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"
