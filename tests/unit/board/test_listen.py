"""What `runbook board` is told on the command line: bad input is refused in one sentence before anything starts."""

from __future__ import annotations

import pytest

from flows.cli.board import _address, board
from handlers.errors import Refused


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8710", ("127.0.0.1", 8710)),
        ("[::1]:0", ("::1", 0)),
        ("board.example.com:443", ("board.example.com", 443)),
    ],
)
def test_an_address_is_a_host_and_a_port(listen: str, address: tuple[str, int]) -> None:
    """IPv6 in brackets, as in a URL."""
    assert _address(listen) == address


@pytest.mark.parametrize(
    "listen", ["", "8710", ":8710", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "h:-1", "h:x"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    """With an example of one."""
    with pytest.raises(Refused, match="is not HOST:PORT, as in 127"):
        _address(listen)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "a-token-of-more-than-twenty"}, "--token .*must be a reference"),
        ({"token": "env:PLACE_NOTHING"}, "PLACE_NOTHING is not set"),
        ({"certificate": "x.pem"}, "--certificate and --key belong together"),
    ],
)
def test_what_is_not_safe_is_refused(options: dict[str, str], said: str) -> None:
    """A token on the command line would be in the list of processes."""
    defaults = {"listen": "127.0.0.1:0", "token": "", "certificate": None, "key": None, "trusted_proxies": ""}
    with pytest.raises(Refused, match=said):
        board(environments=["nowhere"], **{**defaults, **options})  # type: ignore[arg-type]
