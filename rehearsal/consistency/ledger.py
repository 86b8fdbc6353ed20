"""What the ledger says about a release, and whether it agrees with itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from handlers.database.queries import queries
from handlers.queue.throttle import gate_of
from handlers.release.phase import FINISHED, Phase

SQL = queries(__name__)
_WATCH_SHARE = 0.97
"""The last look of a watch may begin a moment before its end."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A release as the ledger has it."""

    phase: Phase
    from_revision: str
    to_revision: str
    speed: float
    is_finished: bool
    is_locked: bool
    unconfirmed: tuple[str, ...]
    open_phases: tuple[str, ...]
    batches: tuple[int, ...]
    others: tuple[str, ...]
    watched_seconds: float | None
    is_quarantined: bool
    held: tuple[str, ...] = ()
    """What the gate of the release still held of the intake when it had finished."""

    @property
    def expected(self) -> frozenset[str]:
        """The revisions that a host may run in this phase: one where the release has ended."""
        match self.phase:
            case Phase.SUCCEEDED:
                return frozenset({self.to_revision})
            case Phase.ROLLED_BACK | Phase.REFUSED | Phase.ABORTED:
                return frozenset({self.from_revision})
            case _:
                return frozenset({self.from_revision, self.to_revision})


async def read(tx: AsyncConnection, release_id: str) -> Ledger:
    """Read the release."""
    values = {"release_id": release_id}
    release = (await tx.execute(SQL["release"], values)).one()
    return Ledger(
        phase=Phase(release.phase),
        from_revision=release.from_revision,
        to_revision=release.to_revision,
        speed=release.speed,
        is_finished=release.is_finished,
        is_locked=release.is_locked,
        unconfirmed=tuple((await tx.execute(SQL["unconfirmed"], values)).scalars()),
        open_phases=tuple((await tx.execute(SQL["open_phases"], values)).scalars()),
        batches=tuple((await tx.execute(SQL["batches"], values)).scalars()),
        others=tuple(f"{row.id} ({row.phase})" for row in await tx.execute(SQL["others"], values)),
        watched_seconds=(await tx.execute(SQL["watched"], values)).scalar_one(),
        is_quarantined=(await tx.execute(SQL["quarantined"], values)).scalar_one(),
        held=tuple((await tx.execute(SQL["limits"], {**values, "gate": gate_of(release_id)})).scalars()),
    )


def disagreements(ledger: Ledger, *, window_seconds: float, is_good: bool) -> Iterator[str]:
    """What is wrong in the ledger, a sentence each; *is_good* is a revision with which nothing is wrong."""
    if ledger.is_finished != (ledger.phase in FINISHED):
        yield f"the release is {ledger.phase}, and has {'a' if ledger.is_finished else 'no'} finish time"
    if ledger.is_locked and ledger.phase in FINISHED | {Phase.HELD}:
        yield f"the release is {ledger.phase}, and its lock is not free"
    if ledger.is_finished and ledger.unconfirmed:
        yield f"operations of a finished release have no outcome: {', '.join(ledger.unconfirmed)}"
    if ledger.open_phases != (ledger.phase,):
        yield f"the release is {ledger.phase}, but open in the ledger is: {', '.join(ledger.open_phases)}"
    if ledger.is_finished and ledger.batches:
        yield f"batches {', '.join(map(str, ledger.batches))} are not settled, or not of their size"
    if ledger.is_finished and ledger.held:
        yield f"the gate of a finished release still held {', '.join(ledger.held)}"
    if ledger.others:
        yield f"another release has not ended: {', '.join(ledger.others)}"
    wanted = window_seconds / ledger.speed
    if ledger.phase is Phase.SUCCEEDED and (ledger.watched_seconds or 0) < _WATCH_SHARE * wanted:
        yield f"the watch took {ledger.watched_seconds or 0:.1f} s instead of {wanted:.1f} s"
    if is_good and ledger.is_quarantined:
        yield "the released revision is in quarantine, although nothing is wrong with it"
