"""What an address answered is shown without the address."""

from __future__ import annotations

import pytest

from handlers.notify.service import _without

URL = "mailtos://ops%40example.com:p%40ssw0rd@smtp.example.com:587/hook-4711?to=team-inbox&token=t0ken99"


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        (f"Unparseable URL {URL}", "Unparseable URL ***"),
        ("login of ops@example.com refused", "login of *** refused"),
        ("the password p@ssw0rd is wrong, as p%40ssw0rd", "the password *** is wrong, as ***"),
        ("404 at /hook-4711 for t0ken99", "404 at /*** for ***"),
        ("no route to smtp.example.com", "no route to smtp.example.com"),
    ],
)
def test_no_part_of_an_address_but_its_host_is_shown(sentence: str, shown: str) -> None:
    """Whatever a plugin says about it, quoted as in the address or not."""
    assert _without(URL, sentence) == shown
