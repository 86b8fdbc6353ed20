"""Who may ask: tokens, cookies, forms and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from board import access
from board.access import COOKIE, SESSION_SECONDS, Access, _is_same_origin, _name_of, raise_unless_safe
from handlers.environment.references import Reference
from handlers.errors import Refused

TOKEN = "a-token-of-more-than-twenty"


def secret(text: str = TOKEN) -> SecretStr:
    return SecretStr(text)


def with_cookie(value: str) -> Headers:
    return Headers({"cookie": f"other=1; {COOKIE}={value}"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "board.example.com", ""])
def test_off_loopback_a_token_is_needed(host: str) -> None:
    """Failing closed: an address that is not known to be of this machine is not."""
    with pytest.raises(Refused, match="set --token"):
        raise_unless_safe(None, host)
    raise_unless_safe(secret(), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_none_is_needed(host: str) -> None:
    """Whoever is on this machine may ask."""
    raise_unless_safe(None, host)


def test_a_short_token_is_refused() -> None:
    """One that can be guessed is none."""
    with pytest.raises(Refused, match="at least 20"):
        raise_unless_safe(secret("short"), "127.0.0.1")


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä" * 30])
def test_only_the_token_is_the_token(given: str) -> None:
    """Nothing near it."""
    assert not Access(secret()).is_token(given)
    assert Access(secret()).is_token(TOKEN)
    assert not Access(None).is_token("")


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        ("Bearer", False),
        ("", False),
    ],
)
def test_a_program_sends_it_as_bearer(header: str, good: bool) -> None:
    """Prometheus does so with bearer_token_file."""
    assert Access(secret()).is_bearer(Headers({"authorization": header})) is good


def test_a_session_is_no_copy_of_the_token_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid for half a day, in this process, and not if one letter of it is changed."""
    now = 1000.0
    monkeypatch.setattr(access.time, "monotonic", lambda: now)
    board = Access(secret())
    session = board.new_session()
    assert TOKEN not in session
    assert board.lets_in(with_cookie(session))
    ends, nonce, signature = session.split(".")
    for forged in ("", "x", f"{int(ends) + 9}.{nonce}.{signature}", f"{session}x", f"9.{nonce}.", "..", "é"):
        assert not board.is_session(forged), forged
    assert not Access(secret()).is_session(session)
    now += SESSION_SECONDS
    assert not board.is_session(session)


def test_a_new_token_ends_the_old_sessions(tmp_path: Path) -> None:
    """The file is read at each use: who had the old token is out."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    board = Access(Reference(f"file:{file}"))
    session = board.new_session()
    assert board.is_session(session)
    file.write_text("another-token-of-more-than-twenty")
    assert not board.is_session(session)
    assert not board.is_token(TOKEN)
    assert board.is_token("another-token-of-more-than-twenty")


def test_a_form_belongs_to_its_session() -> None:
    """Another session's form, and none at all, are not accepted."""
    board = Access(secret())
    mine, other = with_cookie(board.new_session()), with_cookie(board.new_session())
    assert board.is_form_key(board.form_key(mine), mine)
    for given in (board.form_key(other), "", "ü", board.form_key(mine)[:-1]):
        assert not board.is_form_key(given, mine)
    assert not Access(None).is_form_key(Access(None).form_key(Headers({})), Headers({}))


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "127.0.0.1:8710", "origin": "http://127.0.0.1:8710"}, True),
        ({"host": "127.0.0.1:8710", "origin": "http://127.0.0.1:9999"}, False),
        ({"host": "127.0.0.1:8710", "origin": "https://evil.example.com"}, False),
        ({"host": "127.0.0.1:8710", "origin": "null"}, False),
        ({"host": "127.0.0.1:8710", "sec-fetch-site": "cross-site"}, False),
        ({"host": "127.0.0.1:8710", "sec-fetch-site": "same-site"}, False),
        ({"host": "127.0.0.1:8710", "sec-fetch-site": "same-origin"}, True),
        # No browser of today, and so no page of another site: the key of the form decides.
        ({"host": "127.0.0.1:8710"}, True),
    ],
)
def test_a_form_of_another_site_is_told_from_ours(headers: dict[str, str], same: bool) -> None:
    """A browser says where a form comes from."""
    assert _is_same_origin(Headers(headers)) is same


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:8710", "127.0.0.1"),
        ("[::1]:8710", "::1"),
        ("LOCALHOST", "localhost"),
        ("", ""),
        ("[broken", ""),
        ("127.0.0.1@evil.example.com", "evil.example.com"),
        ("evil.example.com/127.0.0.1", "evil.example.com"),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    """What a browser has looked up."""
    assert _name_of(host) == name
