"""Whether the addresses of [notify] can be used: said at `runbook check`, and never a reason to refuse a release."""

from __future__ import annotations

import asyncio

from handlers.environment.model import Environment
from handlers.environment.notification import Addressee
from handlers.errors import ConfigError
from handlers.notify import service
from handlers.release.planned import Check

NAME = "notify"


async def address_checks(environment: Environment) -> list[Check]:
    """One warning for each address that cannot be used. Nothing is sent; `runbook notify test` does that."""
    addresses = environment.notify.addresses
    problems = [problem for problem in await asyncio.gather(*map(_problem, addresses)) if problem]
    if problems or not addresses:
        return [Check(name=NAME, good=True, warns=True, sentence=problem) for problem in problems]
    names = ", ".join(address.name for address in addresses)
    sentence = f"{names}: known to Apprise; `runbook notify test` sends to them"
    return [Check(name=NAME, good=True, sentence=sentence)]


async def _problem(address: Addressee) -> str:
    """What is wrong with an address, without the address; empty where nothing is."""
    try:
        why = await service.problem_with(address.url.get_secret_value())
    except ConfigError as error:
        why = str(error)
    return f"address {address.name} ({address.url.reference}) cannot be used: {why}" if why else ""
