"""How long steps take usually: on each host and of a whole rollback, from the ledger's earlier releases."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release.ledger import durations, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import Phase, Release, Verdict
from handlers.release.usual import Span, UsualSteps
from tests.integration.release.steps import deploying

TO_SUCCESS = (Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING, Phase.SUCCEEDED)


async def ended(engine: AsyncEngine, *ways: Phase, seconds: dict[str, float], probe: float = 4.0) -> Release:
    """A release that took so long for the operations on each host, and has ended."""
    release = await deploying(engine)
    recorder = LedgerRecorder(engine=engine, release=release)
    for name, lasted in seconds.items():
        host, _, kind = name.partition(" ")
        await recorder.intend(f"{release.id}-{name}", host, kind, "true")
        await recorder.confirm(f"{release.id}-{name}", "failed" if lasted < 0 else "done", 0, "")
        async with engine.begin() as tx:
            await tx.execute(
                text(
                    "UPDATE runbook.operation SET started_at = finished_at - make_interval(secs => :s) WHERE id = :id"
                ),
                {"s": abs(lasted), "id": f"{release.id}-{name}"},
            )
    hosts = {
        "web-1": HostNote(ok=True, in_a_row=2, needed=2, seconds=probe),
        "web-2": HostNote(ok=False, in_a_row=0, needed=2, seconds=99.0),
    }
    await releases.note(engine, release, PhaseNote(hosts=hosts))
    for phase in ways:
        release = await releases.enter(engine, release, phase, verdict=Verdict.PASS)
    return release


async def test_without_an_earlier_release_nothing_is_usual(engine: AsyncEngine) -> None:
    """A release that runs is no history of itself, and one that was held neither."""
    await ended(engine, Phase.HELD, seconds={"web-1 activate": 7})
    assert await durations.usual_steps(engine, "staging") == UsualSteps()


async def test_a_step_takes_what_it_took_on_the_hosts_before(engine: AsyncEngine) -> None:
    """The median over hosts and releases, in real seconds; a step that failed and a bad probe do not count."""
    await ended(engine, *TO_SUCCESS, seconds={"web-1 activate": 6, "web-2 activate": 8, "web-1 prepare": -90})
    await ended(engine, *TO_SUCCESS, seconds={"web-1 activate": 20}, probe=5.0)
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.release SET speed = 60"))
    usual = await durations.usual_steps(engine, "staging")
    assert usual.steps == {
        "deploying/switch": Span(shortest=6.0, usual=8.0, longest=20.0),
        "deploying/probe": Span(shortest=4.0, usual=4.5, longest=5.0),
    }
    assert usual.seconds(Phase.DEPLOYING, "switch") == 8.0
    assert usual.seconds(Phase.DEPLOYING, "prepare") is None
    assert usual.rollback is None
    assert await durations.usual_steps(engine, "production") == UsualSteps()


async def test_a_rollback_takes_what_rollbacks_before_took(engine: AsyncEngine) -> None:
    """Until every host was back."""
    back = await ended(engine, Phase.ROLLING_BACK, Phase.ROLLED_BACK, seconds={"web-1 activate": 7})
    async with engine.begin() as tx:
        await tx.execute(
            text("""UPDATE runbook.phase_record SET started_at = finished_at - interval '31 s'
            WHERE release_id = :id AND phase = 'rolling_back'"""),
            {"id": back.id},
        )
    usual = await durations.usual_steps(engine, "staging")
    assert usual.rollback == Span(shortest=31.0, usual=31.0, longest=31.0)
    assert usual.seconds(Phase.DEPLOYING, "switch") == 7.0


async def test_old_releases_do_not_count(engine: AsyncEngine) -> None:
    """The hosts and the settings were others then."""
    await ended(engine, *TO_SUCCESS, seconds={"web-1 activate": 900})
    for _ in range(durations.RELEASES_MAX):
        await ended(engine, *TO_SUCCESS, seconds={"web-1 activate": 5})
    usual = await durations.usual_steps(engine, "staging")
    assert usual.steps["deploying/switch"] == Span(shortest=5.0, usual=5.0, longest=5.0)
