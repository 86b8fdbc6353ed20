"""Lines of a known hosts file are read as OpenSSH reads them; `ssh-keygen -F` is asked where it is installed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from handlers.errors import Refused
from handlers.host.host_key import algorithms, raise_if_not_known
from handlers.host.known_hosts import known_hosts

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def words(key: PrivateKey) -> str:
    """The key type and the key, as in a line."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


OURS, OTHER, THIRD, CA = (ed25519.Ed25519PrivateKey.generate() for _ in range(4))
CURVE = ec.generate_private_key(ec.SECP256R1())
KEY = words(OURS)


def as_paramiko(key: PrivateKey, certificate: bytes | None = None) -> paramiko.PKey:
    """The key as paramiko gives it after the key exchange."""
    blob = base64.b64decode((certificate or words(key).encode()).split()[1])
    kind = paramiko.Ed25519Key if isinstance(key, ed25519.Ed25519PrivateKey) else paramiko.ECDSAKey
    return kind(paramiko.Message(blob))  # type: ignore[arg-type]


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def check(
    file: Path,
    key: paramiko.PKey,
    address: str = "web-1.example.com",
    port: int = 22,
    alias: str | None = None,
) -> str:
    """The sentence of the refusal; empty when the key is accepted."""
    try:
        raise_if_not_known(key, known_hosts(file, address, port, alias), "web-1", alias or address)
    except Refused as error:
        return str(error)
    return ""


NAMES = {
    "plain": ("web-1.example.com", "web-1.example.com", 22, True),
    "capitals in the file": ("Web-1.Example.COM", "web-1.example.com", 22, True),
    "capitals in the address": ("web-1.example.com", "WEB-1.example.com", 22, True),
    "several": ("db,web-1.example.com,10.0.0.1", "10.0.0.1", 22, True),
    "another": ("web-2.example.com", "web-1.example.com", 22, False),
    "star": ("*.example.com", "web-1.example.com", 22, True),
    "question mark": ("web-?.example.com", "web-1.example.com", 22, True),
    "question mark for nothing": ("web-1?.example.com", "web-1.example.com", 22, False),
    "negated": ("*.example.com,!web-1.example.com", "web-1.example.com", 22, False),
    "negated first": ("!web-1.example.com,*.example.com", "web-1.example.com", 22, False),
    "negated other": ("*.example.com,!web-2.example.com", "web-1.example.com", 22, True),
    "only negated": ("!web-2.example.com", "web-1.example.com", 22, False),
    "a bracket is no class": ("web-[12].example.com", "web-1.example.com", 22, False),
    "port": ("[web-1.example.com]:2222", "web-1.example.com", 2222, True),
    "other port": ("[web-1.example.com]:2223", "web-1.example.com", 2222, False),
    "port of a default": ("[web-1.example.com]:2222", "web-1.example.com", 22, False),
    "star with a port": ("[*.example.com]:2222", "web-1.example.com", 2222, True),
    "IPv6": ("fe80::1", "fe80::1", 22, True),
    "IPv6 with a port": ("[fe80::1]:2222", "fe80::1", 2222, True),
    "hashed": (hashed("web-1.example.com"), "web-1.example.com", 22, True),
    "hashed with a port": (hashed("[web-1.example.com]:2222"), "web-1.example.com", 2222, True),
    "hashed other": (hashed("web-2.example.com"), "web-1.example.com", 22, False),
    "broken hash": ("|1|zzz", "web-1.example.com", 22, False),
    "empty pattern": (",,web-1.example.com,", "web-1.example.com", 22, True),
}


@pytest.mark.parametrize(("pattern", "address", "port", "found"), NAMES.values(), ids=NAMES)
def test_names_match_as_for_openssh(
    pattern: str, address: str, port: int, found: bool, tmp_path: Path
) -> None:
    """The line is used exactly for the hosts for which ssh-keygen finds it."""
    file = tmp_path / "known_hosts"
    file.write_text(f"{pattern} {KEY}\n")
    assert (check(file, as_paramiko(OURS), address, port) == "") is found
    if shutil.which("ssh-keygen") and address.islower():
        name = address if port == 22 else f"[{address}]:{port}"
        done = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, check=False)
        assert (b"found: line 1" in done.stdout) is found


def test_the_bare_name_holds_for_another_port_as_well(tmp_path: Path) -> None:
    """As for OpenSSH; but not when the name with the port has another key."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web-1.example.com {KEY}\n")
    assert check(file, as_paramiko(OURS), port=2222) == ""
    file.write_text(f"web-1.example.com {KEY}\n[web-1.example.com]:2222 {words(OTHER)}\n")
    assert "host key changed" in check(file, as_paramiko(OURS), port=2222)


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff# a comment\r\n\r\n  \t\r\nweb-1.example.com {KEY} a comment of its own\r\n",
        f"web-2.example.com ssh-ed25519 not*base64\nweb-1.example.com {KEY}\n",
        f"web-1.example.com ssh-ed25519 AAAA\nweb-1.example.com {KEY}\n",
        f"web-1.example.com ssh-dss AAAAB3NzaC1kc3M=\nweb-1.example.com {KEY}\n",
        f"web-1.example.com sk-ssh-ed25519@openssh.com AAAA\n\tweb-1.example.com\t{KEY}",
        f"web-1.example.com 1024 35 123456789\n@unknown-marker * {KEY}\nweb-1.example.com {KEY}\n",
        f"web-1.example.com\nweb-1.example.com ssh-ed25519\n\x00\x01\nweb-1.example.com {KEY}\n",
        f"web-1.example.com {words(CURVE)}\nweb-1.example.com {words(OTHER)}\nweb-1.example.com {KEY}\n",
        f"@revoked * {words(OTHER)}\n*.example.com {KEY}\n",
        "web-1.example.com " + KEY + "\n" + "x" * 100_000 + "\n",
    ],
)
def test_other_lines_do_not_stop_ours(text: str, tmp_path: Path) -> None:
    """Comments, blank lines, CRLF, a BOM, broken and obsolete lines, several keys: the good line counts."""
    file = tmp_path / "known_hosts"
    file.write_text(text, encoding="utf-8", newline="")
    assert check(file, as_paramiko(OURS)) == ""


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("web-1.example.com ssh-ed25519 not*base64", "known_hosts line 2: its key is not valid base64"),
        (
            "web-1.example.com ssh-ed25519",
            "known_hosts line 2: it must have host names, a key type and a key",
        ),
        (
            f"web-1.example.com ssh-rsa {KEY.split()[1]}",
            "known_hosts line 2: its key is not of the type ssh-rsa",
        ),
        (
            f"@cert-autority web-1.example.com {KEY}",
            "known_hosts line 2: the marker @cert-autority is unknown",
        ),
        (f"web-1.example.com {words(CURVE)}", "(only ecdsa-sha2-nistp256 in line 2)"),
        (f"web-2.example.com {KEY}", "which is not in"),
        (f"web-1.example.com {words(OTHER)}", "host key changed"),
        (f"@revoked web-1.example.com {KEY}", "is revoked in"),
        (f"@cert-authority web-1.example.com {KEY}", "which is not in"),
    ],
    # The keys are random, and two workers of one run must give the same names.
    ids=["base64", "no key", "type", "marker", "curve", "other host", "other key", "revoked", "authority"],
)
def test_a_line_that_does_not_do_is_named(line: str, sentence: str, tmp_path: Path) -> None:
    """One sentence with the file and the line; nothing is accepted."""
    file = tmp_path / "known_hosts"
    file.write_text(f"# the hosts\n{line}\n")
    refusal = check(file, as_paramiko(OURS))
    assert sentence in refusal
    assert len(refusal.splitlines()) == 1


def test_a_revoked_key_is_refused_also_where_it_is_recorded(tmp_path: Path) -> None:
    """@revoked wins, wherever it stands."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web-1.example.com {KEY}\n@revoked *.example.com {KEY}\n")
    assert f"is revoked in {file} line 2" in check(file, as_paramiko(OURS))


def test_an_alias_is_the_only_name(tmp_path: Path) -> None:
    """As for HostKeyAlias: neither the address nor the port is looked up."""
    file = tmp_path / "known_hosts"
    file.write_text(f"erp {KEY}\nweb-1.example.com {words(OTHER)}\n")
    assert check(file, as_paramiko(OURS), port=2222, alias="erp") == ""
    assert "host key changed" in check(file, as_paramiko(OURS), port=22)


def certified(
    *principals: str,
    kind: SSHCertificateType = SSHCertificateType.HOST,
    ca: ed25519.Ed25519PrivateKey = CA,
    since: int = -1,
    until: int = 1,
    critical: bool = False,
) -> bytes:
    """A certificate of our host key; times are days from now."""
    now = datetime.now(UTC)
    builder = (
        SSHCertificateBuilder()
        .public_key(OURS.public_key())
        .type(kind)
        .serial(1)
        .key_id(b"web-1")
        .valid_after((now + timedelta(days=since)).timestamp())
        .valid_before((now + timedelta(days=until)).timestamp())
    )
    if principals:
        builder = builder.valid_principals([name.encode() for name in principals])
    else:
        builder = builder.valid_for_all_principals()
    if critical:
        builder = builder.add_critical_option(b"force-command", b"true")
    return builder.sign(ca).public_bytes()


class TestCertificates:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file with a CA for all our hosts."""
        file = tmp_path / "known_hosts"
        file.write_text(f"@cert-authority *.example.com {words(CA)} our CA\n")
        return file

    @pytest.mark.parametrize("principals", [(), ("web-1.example.com",), ("db", "WEB-1.example.com")])
    def test_a_certificate_of_the_ca_is_enough(self, file: Path, principals: tuple[str, ...]) -> None:
        """For the host's name, or for every host."""
        assert check(file, as_paramiko(OURS, certified(*principals))) == ""

    @pytest.mark.parametrize(
        ("certificate", "sentence"),
        [
            (certified("web-2.example.com"), "it is for web-2.example.com, not for web-1.example.com"),
            (certified(kind=SSHCertificateType.USER), "a certificate of a user"),
            (certified(until=0, since=-3), "not valid at this time"),
            (certified(since=1, until=2), "not valid at this time"),
            (certified(critical=True), "critical options"),
            (certified(ca=OTHER), "which is not in"),
        ],
    )
    def test_a_certificate_that_is_not_valid_is_refused(
        self, file: Path, certificate: bytes, sentence: str
    ) -> None:
        """Each reason has its words."""
        assert sentence in check(file, as_paramiko(OURS, certificate))

    def test_a_forged_certificate_is_refused(self, file: Path) -> None:
        """One byte of the signature differs."""
        kind, encoded, *_ = certified().split()
        blob = bytearray(base64.b64decode(encoded))
        blob[-1] ^= 1
        forged = as_paramiko(OURS, kind + b" " + base64.b64encode(bytes(blob)))
        assert "its signature is not the CA's" in check(file, forged)

    def test_without_the_ca_the_key_itself_counts(self, tmp_path: Path) -> None:
        """A certificate of an unknown CA does no harm where the plain key is recorded."""
        file = tmp_path / "known_hosts"
        file.write_text(f"web-1.example.com {KEY}\n")
        assert check(file, as_paramiko(OURS, certified())) == ""

    def test_a_revoked_ca_is_refused(self, file: Path) -> None:
        """Also when it is recorded as a CA."""
        file.write_text(file.read_text() + f"@revoked * {words(CA)}\n")
        assert "is revoked in" in check(file, as_paramiko(OURS, certified()))


def test_recorded_kinds_are_asked_for_first(tmp_path: Path) -> None:
    """So that a server with several keys shows the one that is recorded; certificates only with a CA."""
    file = tmp_path / "known_hosts"
    file.write_text(
        f"web-1.example.com {words(CURVE)}\nweb-2 ssh-rsa AAAAB3NzaC1yc2E=\n@cert-authority ca {KEY}\n"
    )

    def first(address: str) -> str:
        return algorithms(known_hosts(file, address, 22, None))[0]

    assert first("web-1.example.com") == "ecdsa-sha2-nistp256"
    assert first("web-2") == "rsa-sha2-512"
    assert first("unknown") == "ssh-ed25519"
    assert first("ca") == "ssh-ed25519-cert-v01@openssh.com"
