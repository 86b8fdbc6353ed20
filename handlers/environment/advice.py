"""Commands in our sentences, made to work as they are printed: each names the environment that it is about."""

from __future__ import annotations

import re

from handlers.environment.load import env_option

WITHOUT_ENVIRONMENT = frozenset({"rehearse", "up", "worker", "receive"})
"""The commands that take no environment, or can do without one."""
_COMMAND = re.compile(r"`runbook (?P<name>[a-z-]+)(?P<rest>[^`]*)`")
_NEEDS_NONE = re.compile(r"\s(-e|--environment|--through|--help)\b")


def addressed(text: str, environment: str) -> str:
    """*text* with the option of *environment*, a name or a path, in each command between backticks that lacks it.

    Sentences are written, and stored in the ledger, by code that does not know how a reader's machine finds the
    environment. So this is done where they are shown.
    """

    def complete(found: re.Match[str]) -> str:
        if found["name"] in WITHOUT_ENVIRONMENT or _NEEDS_NONE.search(found["rest"]):
            return found[0]
        return f"`runbook {found['name']}{found['rest'].rstrip()} {env_option(environment)}`"

    return _COMMAND.sub(complete, text)
