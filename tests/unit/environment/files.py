"""Environments for tests, in one line each."""

from __future__ import annotations

from typing import Any

from handlers.environment.load import parse
from handlers.environment.model import Environment

PASSWORD = "s3ntinel-passw0rd"


def values(*hosts: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """The values of an environment file, with keys of its sections replaced: `values(ssh={"user": "x"})`."""
    file: dict[str, Any] = {
        "name": "staging",
        "database": {"url": f"postgresql://runbook:{PASSWORD}@127.0.0.1:1/none"},
        "ssh": {"user": "deploy", "key_file": "~/.ssh/key", "known_hosts_file": "/etc/known_hosts"},
        "hosts": [
            {
                "name": name,
                "address": f"{name}.example.com",
                "health_url": f"http://{name}.example.com/health",
            }
            for name in hosts or ("web-1", "web-2")
        ],
        "deploy": {"directory": "/srv/erp"},
        "services": {"web": ["tsh-erp"]},
    }
    for section, keys in changes.items():
        file[section] = {**file.get(section, {}), **keys}
    return file


def environment(*hosts: str, **changes: dict[str, Any]) -> Environment:
    """The environment with these hosts and changed keys."""
    return parse(values(*hosts, **changes), source="test")
