"""What is read from the forge's answers. Only the fields that are used: a new or changed other one does not matter."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from handlers.errors import Refused

T = TypeVar("T")


class Answer(BaseModel):
    """A part of an answer: frozen, and other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class User(Answer):
    """An account."""

    login: str


class Tip(Answer):
    """One side of a pull request."""

    ref: str
    sha: str


class Pull(Answer):
    """A pull request. In a list the fields about the merge are missing."""

    number: int
    html_url: str
    state: str
    draft: bool = False
    title: str = ""
    body: str | None = None
    head: Tip
    base: Tip
    user: User | None = None
    merged_at: datetime | None = None
    merged_by: User | None = None
    merge_commit_sha: str | None = None
    mergeable: bool | None = None
    mergeable_state: str = ""

    @property
    def merged(self) -> bool:
        """Whether it was merged."""
        return self.merged_at is not None


class Review(Answer):
    """A review of a pull request, oldest first in a list."""

    user: User | None = None
    state: str
    commit_id: str | None = None
    author_association: str = ""
    body: str | None = ""


class CheckRun(Answer):
    """A check of a commit, reported by an app."""

    name: str
    status: str
    conclusion: str | None = None
    html_url: str | None = None


class CommitStatus(Answer):
    """The newest status of a context: the older way to report a check."""

    context: str
    state: str
    target_url: str | None = None


class WorkflowRun(Answer):
    """A run of a workflow of GitHub Actions."""

    id: int
    name: str | None = None
    path: str = ""
    event: str = ""
    head_sha: str
    run_number: int = 0
    status: str | None = None
    conclusion: str | None = None
    html_url: str = ""

    @property
    def label(self) -> str:
        """Its workflow for people."""
        return self.name or self.file

    @property
    def file(self) -> str:
        """The file name of its workflow."""
        return self.path.partition("@")[0].rpartition("/")[2]


class GitPerson(Answer):
    """Who wrote a commit, as git says it."""

    name: str = ""


class GitCommit(Answer):
    """The git part of a commit."""

    message: str = ""
    author: GitPerson | None = None


class ComparedCommit(Answer):
    """A commit between two revisions."""

    sha: str
    commit: GitCommit


class ChangedFile(Answer):
    """A file that differs between two revisions. A patch of a large file is missing."""

    filename: str
    status: str
    patch: str | None = None
    previous_filename: str | None = None


class Comparison(Answer):
    """What a head has that a base has not."""

    status: str
    ahead_by: int
    behind_by: int
    total_commits: int
    commits: tuple[ComparedCommit, ...] = ()
    files: tuple[ChangedFile, ...] = ()


class Merged(Answer):
    """The answer to a merge."""

    sha: str
    merged: bool


class Named(Answer):
    """Something with a hash."""

    sha: str


class Ref(Answer):
    """A branch."""

    object: Named


class Tree(Answer):
    """A commit with its tree."""

    sha: str
    tree: Named


class Repository(Answer):
    """The repository, and what the token may do there."""

    full_name: str
    archived: bool = False
    permissions: dict[str, bool] | None = None
    allow_squash_merge: bool | None = None


def parse(kind: type[T], value: Any, where: str) -> T:
    """*value* as this model. Raises Refused when it is none: then *where* does not answer as GitHub's API does."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Refused(
            f"{where} does not answer as GitHub's API does ({field}: {first['msg']}): check forge.api_url"
        ) from error
