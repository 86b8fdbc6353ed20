"""Operations whose outcome was never recorded: the hosts are asked about them, so that none stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from handlers.core import Core
from handlers.errors import RunbookError
from handlers.host.operations import OperationOutcome, ask
from handlers.host.ssh import Shell
from handlers.release.ledger import intents
from handlers.release.ledger.intents import OperationRecord
from handlers.release.phase import Release

ASK_SECONDS = 20.0
"""How long one host may take to answer about its operations."""


async def settle(core: Core, release: Release) -> None:
    """Ask the hosts about every operation without a certain outcome, and record what they say.

    A host that cannot be asked leaves its operations unknown, with the reason; it never stops the release.
    """
    by_host: dict[str, list[OperationRecord]] = {}
    for operation in await intents.open_operations(core.database, release):
        by_host.setdefault(operation.host, []).append(operation)
    await asyncio.gather(*(_settle_host(core, name, operations) for name, operations in by_host.items()))


async def _settle_host(core: Core, name: str, operations: Sequence[OperationRecord]) -> None:
    known = {host.name: host for host in core.environment.hosts}
    if name not in known:
        await _unknown(core, operations, f"{name} is not in the environment file")
        return
    shell = Shell(core.environment, known[name])
    left = list(operations)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            while left:
                result = await ask(shell, left[0].id)
                await intents.confirm(
                    core.database,
                    left[0].id,
                    outcome=result.outcome,
                    exit_status=result.exit_status,
                    output=result.output or result.sentence,
                )
                del left[0]
    except TimeoutError:
        await _unknown(core, left, f"{name} did not answer within {ASK_SECONDS:g} s")
    except RunbookError as error:
        await _unknown(core, left, str(error))
    finally:
        shell.close()


async def _unknown(core: Core, operations: Sequence[OperationRecord], why: str) -> None:
    for operation in operations:
        await intents.confirm(
            core.database, operation.id, outcome=OperationOutcome.UNKNOWN, exit_status=None, output=why
        )
