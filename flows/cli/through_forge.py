"""What `--through` does on a forge: it pushes before the first release, and merges before that of the forge's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows import pull_request
from flows.cli.output import print_json
from flows.cli.pr import merged_answer, teller
from handlers.environment.model import Environment
from handlers.errors import Refused
from handlers.forge import local_git, pulling
from handlers.forge.calls import open_calls
from handlers.release.override import OverrideRequest
from handlers.release.phase import short


def raise_if_unclear(places: Sequence[Environment]) -> None:
    """Raise Refused when two environments of a chain would merge: the commit of the second is made by the first."""
    names = [each.name for each in places if each.forge is not None]
    if len(names) > 1:
        raise Refused(
            f"{' and '.join(names)} both have [forge]: --through merges one pull request. Release to them one by one"
        )


async def push_first(places: Sequence[Environment], revision: str, *, json: bool) -> str:
    """Push the commit before the first release, and wait for its workflows. Returns its id, or "" without a forge.

    What was merged before is not pushed again. A name is one of the local clone.
    """
    settings = next((each for each in places if each.forge is not None), None)
    if settings is None or settings.forge is None:
        return ""
    clone = Path()
    commit = await local_git.whole_commit(clone, revision)
    async with open_calls(settings.forge, teller(json=json)) as calls:
        found = await pulling.find(calls, settings.deploy.branch, commit)
        if found.pull is not None and found.pull.merged:
            return commit
        if not await pulling.is_on_branch(calls, settings, commit):
            await pull_request.push_and_watch(calls, settings, commit, clone=clone)
    return commit


async def merge_before(
    settings: Environment, commit: str, *, reason: str, override: OverrideRequest | None, json: bool
) -> str:
    """The commit to release to this environment: what the merge made of *commit*, or itself without a forge."""
    if settings.forge is None:
        return commit
    merged = await pull_request.bring(
        settings, commit, clone=Path(), reason=reason, tell=teller(json=json), override=override
    )
    if merged is None:
        return commit
    if json:
        print_json(merged_answer(settings, merged))
    else:
        teller(json=json)(f"{settings.name} is released with {short(merged.commit)}, what the merge has made")
    return merged.commit
