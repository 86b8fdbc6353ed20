"""The keys of an environment file about its forge: where pull requests are merged before a release."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from handlers.environment.references import LaterSecret, Local
from handlers.environment.section import Seconds, Section, is_a_web_address

_BRANCH = re.compile(r"(?![-/.])(?!.*(?:\.\.|//|/\.|\.lock$))[A-Za-z0-9._/-]{1,200}(?<![/.])")


def _is_a_branch(text: str) -> str:
    if not _BRANCH.fullmatch(text):
        raise ValueError(f"{text!r} is not a branch's name (letters, digits, . _ - /)")
    return text


Branch = Annotated[str, AfterValidator(_is_a_branch)]


def _is_safe_for_a_token(text: str) -> str:
    is_a_web_address(text)
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be an address alone: no user, password, query or fragment")
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("must begin with https://, because the token is sent there")
    return text


class Forge(Section):
    """The forge (GitHub's REST API) on which a commit gets onto deploy.branch: by a pull request."""

    api_url: Annotated[str, AfterValidator(_is_safe_for_a_token)] = "https://api.github.com"
    """GitHub's own, or `https://HOST/api/v3` of a GitHub Enterprise Server."""
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$")]
    """`owner/name`."""
    token: LaterSecret
    """A fine-grained token for this repository; docs/forge.md lists the rights."""
    ca_file: Local | None = None
    """CA certificates (PEM) that are trusted for api_url, besides the system's."""
    remote: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "origin"
    """The name of the repository in the local clone that is pushed from."""
    head_branch: Branch = "develop"
    """The branch that is pushed, and that the pull request merges into deploy.branch."""
    workflows: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Workflows that a push starts, by name or file name: each must have a successful run of the commit."""
    checks: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Checks or statuses that must exist before the merge. Those that exist must be good, named or not."""
    approvals: Annotated[int, Field(ge=0, le=20)] = 1
    """So many people with the right to write must have approved this very commit."""
    merge_method: Literal["squash", "merge", "rebase"] = "squash"
    poll_seconds: Annotated[float, Field(gt=0, le=600)] = 15
    answer_seconds: Annotated[float, Field(gt=0, le=300)] = 20
    push_seconds: Annotated[float, Field(gt=0, le=3600)] = 300
    appear_seconds: Seconds = 300
    """After this time without a run of a named workflow, or a named check, the command ends."""
    checks_seconds: Seconds = 3600
    """So long are workflows and checks waited for."""
    review_seconds: Seconds = 3600
    """So long are reviews waited for; then the command ends, and the same command goes on later."""
    rate_limit_seconds: Annotated[float, Field(ge=0, le=7200)] = 900
    """So long does one call wait in all where the forge limits the rate of calls."""

    @property
    def owner(self) -> str:
        """The owner of the repository."""
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        """The name of the repository."""
        return self.repository.partition("/")[2]

    @property
    def host(self) -> str:
        """The forge in sentences: the host of its API."""
        return urlsplit(self.api_url).netloc
