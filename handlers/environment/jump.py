"""The jump hosts between the controller and a host, as OpenSSH's ProxyJump names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOP = re.compile(r"(?:ssh://)?(?:([^@\s]+)@)?(?:\[([0-9A-Fa-f:.%\w]+)\]|([^@:\[\]\s/,]+))(?::(\d{1,5}))?/?")


@dataclass(frozen=True, kw_only=True)
class Jump:
    """One jump host. Without a user, it is ssh.user."""

    user: str | None
    address: str
    port: int


def jumps(text: str | None) -> tuple[Jump, ...]:
    """The hosts of `[user@]host[:port]`, joined with commas and passed in this order. `none` means no jump host.

    Raises ValueError with a sentence.
    """
    if text is None or text.strip().lower() == "none":
        return ()
    hops = []
    for word in text.split(","):
        found = _HOP.fullmatch(word.strip())
        port = int(found[4] or 22) if found else 0
        if found is None or not 0 < port < 65536:
            raise ValueError(
                f"{word.strip()!r} is not a jump host: it must look like user@bastion.example.com:22"
            )
        hops.append(Jump(user=found[1], address=found[2] or found[3], port=port))
    return tuple(hops)
