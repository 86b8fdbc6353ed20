"""A forge with its repository, a clone, and an environment that merges there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.pull_request import bring
from handlers.environment.load import parse_text
from handlers.environment.model import Environment
from handlers.release.pulled import MergedPull
from tests.integration.forge import bare, stand_in
from tests.integration.forge.bare import Bare, Clone
from tests.integration.forge.stand_in import StandIn
from tests.integration.release.pair import PLACE

FORGE = """
[forge]
api_url = "{url}"
repository = "{repository}"
token = "file:{token}"
workflows = ["ci.yml"]
poll_seconds = 0.05
answer_seconds = 20
"""


@dataclass(kw_only=True)
class Hub:
    """The forge as one person uses it."""

    forge: StandIn
    bare: Bare
    clone: Clone
    first: str
    """The commit on main and develop."""
    file: Path
    """The environment file."""
    told: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def make(cls, folder: Path, *, database: str = "postgresql://x@127.0.0.1:1/x") -> Iterator[Hub]:
        """A new one in a folder. What the published description does not allow fails the test at the end."""
        repository, clone, first = bare.make(folder)
        with stand_in.serving(StandIn(repository)) as forge:
            token, file = folder / "token", folder / "production.toml"
            token.write_text(f"{stand_in.TOKEN}\n", encoding="utf-8")
            text = PLACE.format(name="production", url=database, port=1)
            file.write_text(
                text + FORGE.format(url=forge.url, repository=stand_in.REPOSITORY, token=token),
                encoding="utf-8",
            )
            yield cls(forge=forge, bare=repository, clone=clone, first=first, file=file)
            assert forge.problems == []

    def environment(self, **changes: object) -> Environment:
        """The environment with other values in [forge]."""
        found = parse_text(self.file.read_text(encoding="utf-8"), source="the test")
        assert found.forge is not None
        return found.model_copy(update={"forge": found.forge.model_copy(update=changes)})

    def work(self, number: int = 2, **files: str) -> str:
        """A commit of this person that is pushed nowhere."""
        return self.clone.commit(f"Version {number}", {"app.py": f"VERSION = {number}\n", **files})

    def make_good(self, commit: str) -> None:
        """Let workflow, check and review be good."""
        self.forge.run(commit, "completed", "success", id=77)
        self.forge.check(commit, "build", "success")
        self.forge.review("grace", "APPROVED", commit)

    async def bring(self, commit: str, **changes: object) -> MergedPull | None:
        """What `runbook release --through` does before the release."""
        return await bring(
            self.environment(**changes), commit, clone=self.clone.folder, reason="", tell=self.told.append,
            override=None,
        )  # fmt: skip
