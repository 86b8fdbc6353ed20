"""The plan of a pull request: what a merge would bring onto the branch, with its hash and its description. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlers.environment.model import Environment
from handlers.forge.answers import ChangedFile, Comparison, GitCommit
from handlers.release.schema_changes import Change, FileChange, Mark, Migration, mark

COMMITS_SHOWN = 50
FILES_MAX = 300
"""A comparison lists so many files."""
_MARKER = re.compile(r"<!-- tds-runbook head=([0-9a-f]{40}) plan=([0-9a-f]{12}) -->")


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    """What is merged: bound to the commit, not to the branch."""

    environment: str
    repository: str
    base: str
    head_branch: str
    head: str
    """The whole commit id that is merged, and nothing else."""
    commits: tuple[str, ...]
    """`4f2c9e1 Ada L: Fix the session`, newest first."""
    migrations: tuple[Migration, ...]
    files_unknown: bool
    """More files differ than the forge lists, so that migrations may be missing."""
    good_percent: float
    roll_back_percent: float
    approvals: int

    @property
    def hash(self) -> str:
        """Twelve hex digits that identify what is merged, where, and by which rules."""
        bound = {
            "environment": self.environment,
            "repository": self.repository,
            "base": self.base,
            "head": self.head,
            "commits": self.commits,
            "migrations": [(each.path, each.mark) for each in self.migrations],
            "thresholds": [self.good_percent, self.roll_back_percent],
            "approvals": self.approvals,
        }
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """The title of the pull request, and the subject of the merge's commit."""
        subject = self.commits[0].partition(": ")[2] if len(self.commits) == 1 else ""
        return subject or f"Release {self.head[:7]} to {self.environment}: {len(self.commits)} commits"

    def description(self, proof: str = "", reason: str = "") -> str:
        """The description in Markdown; *proof* says what another environment has proven, *reason* why it is wanted."""
        lines = [f"Merges `{self.head}` into `{self.base}`, for a release to {self.environment}.", ""]
        lines += [_text(reason), ""] if reason else []
        lines += [f"**Proof** {_text(proof)}", ""] if proof else []
        lines += ["### Commits", ""]
        lines += [f"- `{each[:7]}` {_text(each[8:])}" for each in self.commits[:COMMITS_SHOWN]]
        if len(self.commits) > COMMITS_SHOWN:
            lines.append(f"- and {len(self.commits) - COMMITS_SHOWN} more")
        lines += ["", "### Migrations", ""]
        lines += [f"- **{each.mark}** {_text(each.sentence)}" for each in self.migrations] or ["None."]
        if self.files_unknown:
            lines.append("- **unknown** more files differ than are listed here")
        one_way = any(each.mark is Mark.CONTRACT for each in self.migrations)
        below = (
            "held, because a contract migration is not taken back" if one_way else "rolled back automatically"
        )
        lines += [
            "",
            "### Gate",
            "",
            f"Good from {self.good_percent:g} % of webhook events, {below} below {self.roll_back_percent:g} %. "
            "The release proves itself on one dead letter, drains the others, and is watched.",
            "",
            "### Way back",
            "",
            "`runbook rollback` deploys the revision before on every host, and proves it.",
            "",
            f"Plan `{self.hash}`: only this commit is merged. A later push needs a new plan.",
            f"<!-- tds-runbook head={self.head} plan={self.hash} -->",
        ]
        return "\n".join(lines) + "\n"


def planned_in(body: str | None) -> tuple[str, str] | None:
    """The commit and the hash that a description was made for. None where we did not make it."""
    found = _MARKER.search(body or "")
    return (found[1], found[2]) if found else None


def plan_of(environment: Environment, head: str, comparison: Comparison) -> PullPlan:
    """The plan of merging *head* into the environment's branch."""
    assert environment.forge is not None
    return PullPlan(
        environment=environment.name,
        repository=environment.forge.repository,
        base=environment.deploy.branch,
        head_branch=environment.forge.head_branch,
        head=head,
        commits=tuple(
            f"{each.sha[:7]} {_author(each.commit)}: {_subject(each.commit.message)}"
            for each in reversed(comparison.commits)
        ),
        migrations=_migrations(comparison.files, environment.migrations.paths),
        files_unknown=len(comparison.files) >= FILES_MAX,
        good_percent=environment.gate.good_percent,
        roll_back_percent=environment.gate.roll_back_percent,
        approvals=environment.forge.approvals,
    )


def _migrations(files: Sequence[ChangedFile], patterns: Sequence[str]) -> tuple[Migration, ...]:
    """The ERP's migrations among the files, by the rules of a release's plan."""
    regexes = [_regex(pattern) for pattern in patterns]
    changes = []
    for file in files:
        names = [(file.filename, file)]
        if file.status == "renamed" and file.previous_filename:
            names.append(
                (file.previous_filename, file.model_copy(update={"status": "removed", "patch": None}))
            )
        for name, each in names:
            if any(regex.fullmatch(name) for regex in regexes) and not name.endswith("/__init__.py"):
                changes.append(_change(name, each))
    return mark(changes)


def _change(name: str, file: ChangedFile) -> Change:
    kinds = {"added": FileChange.ADDED, "copied": FileChange.ADDED, "removed": FileChange.REMOVED}
    kind = kinds.get(file.status, FileChange.CHANGED)
    return Change(path=name, change=kind, text=_added_text(file.patch) if file.status == "added" else None)


def _added_text(patch: str | None) -> str | None:
    """The text of a new file from its patch: one hunk of added lines. None when it is anything else."""
    if not patch:
        return None
    hunk, *lines = patch.split("\n")
    if not re.match(r"@@ -0,0 \+1(,\d+)? @@", hunk):
        return None
    text = [line[1:] for line in lines if not line.startswith("\\")]
    found = re.match(r"@@ -0,0 \+1(?:,(\d+))? @@", hunk)
    # A patch that was cut off is not the file.
    whole = found is not None and len(text) == int(found[1] or 1)
    good = whole and all(line.startswith(("+", "\\")) for line in lines)
    return "\n".join(text) + "\n" if good else None


def _regex(pattern: str) -> re.Pattern[str]:
    """Git's glob magic: `**/` is any folders, `*` and `?` stay in a folder."""
    out, rest = "", pattern
    while rest:
        for sign, meaning in (
            ("/**/", "/(?:.*/)?"),
            ("**/", "(?:.*/)?"),
            ("/**", "/.*"),
            ("*", "[^/]*"),
            ("?", "[^/]"),
        ):
            if rest.startswith(sign):
                out, rest = out + meaning, rest[len(sign) :]
                break
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    return re.compile(out)


def _author(commit: GitCommit) -> str:
    name = commit.author.name if commit.author else ""
    return " ".join((name or "unknown").split())[:40]


def _subject(message: str) -> str:
    return " ".join(
        "".join(each if each.isprintable() else " " for each in message.partition("\n")[0]).split()
    )[:200]


def _text(text: str) -> str:
    """*text* from outside in Markdown: on one line, mentions nobody, and is neither a link, HTML nor our marker."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    line = re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", line)
    return line.replace("@", "@\u200b")
