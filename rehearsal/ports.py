"""Ports of servers that start later and repeatedly: reserved by the process that chose them until the host ends."""

from __future__ import annotations

import secrets
import socket


def reserve() -> socket.socket:
    """A socket that holds a loopback port and does not listen: a server of ours that shares ports can serve there.

    The server binds with SO_REUSEPORT, as we do. To every other program the port is taken, also while the server
    is down. The port lies below those that outgoing connections take, for a target that outlives its starter.
    """
    for _ in range(1000):
        reserved = socket.socket()
        # Without SO_REUSEADDR, which would let other processes bind the port as long as none listens.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            reserved.bind(("127.0.0.1", 12_000 + secrets.randbelow(20_000)))
        except OSError:
            reserved.close()
            continue
        return reserved
    raise RuntimeError("no free port on loopback")
