"""A password that stands in an environment file which others on this machine can read."""

from __future__ import annotations

import stat

from handlers.environment.address import parse
from handlers.environment.load import path_of
from handlers.environment.model import Environment
from handlers.errors import ConfigError

_OTHERS = stat.S_IRGRP | stat.S_IROTH


def exposed_password(environment: Environment) -> str:
    """What is wrong and what to do, without the password; empty where there is none or only its owner can read it."""
    if not parse(environment.database.url).password:
        return ""
    try:
        path = path_of(environment.name)
        mode = path.stat().st_mode
    except (ConfigError, OSError):
        return ""
    if not mode & _OTHERS:
        return ""
    return (
        f"database.url in {path} has a password, and others can read the file (mode {stat.S_IMODE(mode):o}): move it "
        'to database.password = "file:…" or "env:…", or `chmod 600` the file'
    )
