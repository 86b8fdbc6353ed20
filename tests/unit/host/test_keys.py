"""Private key files of every form are read, and each that cannot be is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from handlers.environment.model import Ssh
from handlers.errors import Refused
from handlers.host.keys import identities, load_key

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KEYS: dict[str, PrivateKey] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
FORMS = {
    "openssh": serialization.PrivateFormat.OpenSSH,
    "pem": serialization.PrivateFormat.TraditionalOpenSSL,
    "pkcs8": serialization.PrivateFormat.PKCS8,
}
SECRET = "open it"


def written(file: Path, key: PrivateKey, form: str, passphrase: str | None) -> Path:
    """A key file; OpenSSH's form with few rounds, to be quick."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None and form == "openssh":
        builder = FORMS[form].encryption_builder().kdf_rounds(1)
        encryption = builder.build(passphrase.encode())
    elif passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, FORMS[form], encryption))
    return file


def refusal(file: Path, passphrase: str | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sentence with which the file is refused."""
    monkeypatch.setenv("KEY_WORD", passphrase or "")
    ssh = Ssh(
        user="u",
        key_file=file,
        key_passphrase=None if passphrase is None else "env:KEY_WORD",  # type: ignore[arg-type]
        known_hosts_file=Path("k"),
    )
    with pytest.raises(Refused) as caught, identities(ssh):
        pass
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("passphrase", [None, SECRET], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KEYS)
def test_every_form_of_every_kind_is_read(
    kind: str, form: str, passphrase: str | None, tmp_path: Path
) -> None:
    """OpenSSH, PEM and PKCS #8, with a passphrase and without; Ed25519 has no PEM form of its own."""
    if (kind, form) == ("ed25519", "pem"):
        return
    key = KEYS[kind]
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    loaded = load_key(written(tmp_path / "key", key, form, passphrase), passphrase)
    assert f"{loaded.get_name()} {loaded.get_base64()}" == public.decode()
    assert loaded.can_sign()


def test_a_key_is_decrypted_once_however_many_logins_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passphrase is slow to try. Each login has a key of its own, and a file that was replaced is read again."""
    decrypt, tries = serialization.load_ssh_private_key, []

    def counted(data: bytes, password: bytes | None) -> object:
        tries.append(password)
        return decrypt(data, password)

    monkeypatch.setattr(serialization, "load_ssh_private_key", counted)
    key = ed25519.Ed25519PrivateKey.generate()
    file = written(tmp_path / "key", key, "openssh", SECRET)
    first, second = load_key(file, SECRET), load_key(file, SECRET)
    assert (first == second, first is second, len(tries)) == (True, False, 1)
    with pytest.raises(Refused, match="key_passphrase is wrong"):
        load_key(file, "not this")
    other = load_key(written(file, ed25519.Ed25519PrivateKey.generate(), "openssh", SECRET), SECRET)
    assert (other == first, len(tries)) == (False, 3)


@pytest.mark.parametrize("form", FORMS)
def test_a_passphrase_that_does_not_fit_is_named(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one, none, and one too many."""
    locked = written(tmp_path / "locked", KEYS["rsa"], form, SECRET)
    plain = written(tmp_path / "plain", KEYS["rsa"], form, None)
    assert "ssh.key_passphrase is wrong" in refusal(locked, "wrong", monkeypatch)
    assert "is encrypted: set ssh.key_passphrase" in refusal(locked, None, monkeypatch)
    assert "is not encrypted: remove ssh.key_passphrase" in refusal(plain, SECRET, monkeypatch)


def test_a_file_that_is_no_private_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public key, a key of PuTTY, a damaged file, another text, an empty file, a directory, none."""
    key = written(tmp_path / "key", KEYS["ed25519"], "openssh", SECRET)
    plain = written(tmp_path / "plain", KEYS["ed25519"], "openssh", None)
    texts = {
        "public": (KEYS["ed25519"].public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ), None, "is a public key"),
        "putty": (b"PuTTY-User-Key-File-3: ssh-ed25519\n", None, "is a key of PuTTY"),
        "cut": (key.read_bytes()[:150], SECRET, "ssh.key_passphrase is wrong, or the file is damaged"),
        "cut plain": (plain.read_bytes()[:150], None, "is not a usable private key"),
        "text": (b"hello", None, "is not a usable private key"),
        "text and a passphrase": (b"hello", SECRET, "is not a usable private key"),
        "empty": (b"", None, "is not a usable private key"),
    }  # fmt: skip
    for name, (content, passphrase, sentence) in texts.items():
        file = tmp_path / name
        file.write_bytes(content)
        assert sentence in refusal(file, passphrase, monkeypatch)
    assert "cannot read" in refusal(tmp_path, None, monkeypatch)
    assert "cannot read" in refusal(tmp_path / "none", None, monkeypatch)
