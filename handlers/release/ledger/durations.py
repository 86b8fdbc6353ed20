"""How long the phases of the last releases took, and each step on a host."""

from __future__ import annotations

from handlers.database.queries import queries
from handlers.database.transaction import Bind, transaction
from handlers.release.host_steps import step_of
from handlers.release.phase import Phase
from handlers.release.usual import Span, Usual, UsualSteps, span_of, step_key, usual_of

SQL = queries(__name__)

RELEASES_MAX = 10
"""So many of the newest releases count: older ones had other hosts and other settings."""


async def usual(bind: Bind, environment: str, scope: tuple[Phase, ...]) -> Usual | None:
    """How long the phases of *scope* took in the newest releases of the same scope that succeeded; None without one."""
    async with transaction(bind) as tx:
        if not (await tx.execute(SQL["has_ledger"])).scalar_one():
            return None
        phases = [phase.value for phase in scope]
        values = {"environment": environment, "phases": phases, "most": RELEASES_MAX}
        found: dict[str, dict[Phase, float]] = {}
        for row in await tx.execute(SQL["durations"], values):
            found.setdefault(row.release_id, {})[Phase(row.phase)] = float(row.seconds)
    return usual_of(found.values())


async def usual_steps(bind: Bind, environment: str) -> UsualSteps:
    """What each step on a host took in the newest releases that ended well or were rolled back, in real seconds."""
    async with transaction(bind) as tx:
        if not (await tx.execute(SQL["has_ledger"])).scalar_one():
            return UsualSteps()
        values = {"environment": environment, "most": RELEASES_MAX}
        spans: dict[str, Span] = {}
        for row in await tx.execute(SQL["step_durations"], values):
            spans[step_key(Phase(row.phase), step_of(row.kind))] = Span(
                shortest=row.shortest, usual=row.usual, longest=row.longest
            )
        backs = [float(row.seconds) for row in await tx.execute(SQL["rollback_durations"], values)]
    return UsualSteps(steps=spans, rollback=span_of(backs) if backs else None)
