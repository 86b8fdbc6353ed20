"""The end of a rollback: is the former revision really back, and what is kept about why."""

from __future__ import annotations

from handlers.core import Core
from handlers.phases import deploy
from handlers.release import left_behind
from handlers.release.ledger import records
from handlers.release.phase import Conclusion, Release, Verdict, short


async def conclude(
    core: Core, release: Release, *, activated: Conclusion, why: str, evidence: str
) -> Conclusion:
    """Prove the former revision on every host, and set the one that was left aside until a person lifts that.

    Passes only when every host answers with the former revision; what was said on the way is in the sentence, and so is
    what the one that was left has left behind.
    """
    proven = await deploy.prove(core, release, release.from_revision)
    if release.from_revision != release.to_revision:
        await records.quarantine(core.database, release, why)
    if proven.verdict is Verdict.PASS:
        sentence = f"back on {short(release.from_revision)}: {proven.sentence}; because {why}"
    else:
        sentence = (
            f"not proven back on {short(release.from_revision)}: {proven.sentence}; {activated.sentence}"
        )
    left = await left_behind.kinds(core.database, release)
    if left:
        sentence += f"; {left_behind.summary(left)}; `{left_behind.command(release)}` sends them back"
    return Conclusion(
        verdict=proven.verdict,
        sentence=sentence,
        detail={"why": why, "evidence": evidence, "activated": activated.sentence},
    )
