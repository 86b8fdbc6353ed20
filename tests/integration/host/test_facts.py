"""Reading the state of a host and resolving a revision there, without changing the running tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handlers.errors import Refused, TryAgain
from handlers.host.changed_files import changed_files
from handlers.host.command import Command
from handlers.host.facts import commits_between, denied, inspect, resolve
from handlers.host.ssh import Shell
from handlers.release.schema_changes import Mark, mark
from tests.integration.host.ssh_target import Target, open_host, serve, unit


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """One host."""
    async with serve(tmp_path, kind="asyncssh") as target:
        yield target


@pytest.fixture
async def shell(target: Target) -> AsyncIterator[Shell]:
    """A connection to it."""
    environment = target.environment()
    async with open_host(environment, environment.hosts[0]) as shell:
        yield shell


async def test_the_facts_of_a_clean_host(target: Target, shell: Shell) -> None:
    """Revision, clean tree, room, clock, units and no state yet."""
    unit(target.hosts["web-1"], "tsh-erp", "/bin/sleep 1000")
    await shell.run(Command("systemctl", "start", "tsh-erp"))
    facts = await inspect(shell)
    assert facts.revision == target.head()
    assert facts.clean
    assert facts.problem == ""
    assert facts.free_bytes > 0
    assert facts.clock.low <= 0 <= facts.clock.high
    assert abs(facts.clock.middle) < 2
    assert facts.state is None
    web, workers = facts.units
    assert (web.name, web.loaded, web.active, web.main_pid is not None) == ("tsh-erp", True, True, True)
    assert (workers.loaded, workers.active, workers.main_pid) == (False, False, None)


async def test_a_local_change_is_seen_and_shown(target: Target, shell: Shell) -> None:
    """A dirty tree is reported with its diff; an untracked file does not make it dirty."""
    (target.tree() / "notes.txt").write_text("mine")
    assert (await inspect(shell)).clean
    (target.tree() / "app.txt").write_text("hand-made")
    facts = await inspect(shell)
    assert not facts.clean
    assert "+hand-made" in facts.dirt


async def test_a_huge_local_change_is_shortened(target: Target, shell: Shell) -> None:
    """A long diff is shortened."""
    (target.tree() / "app.txt").write_text("x\n" * 1_000_000)
    assert 100 < len((await inspect(shell)).dirt) < 10_000


async def test_a_password_in_the_remote_address_is_not_shown(target: Target, shell: Shell) -> None:
    """The address of the remote is shown without its password."""
    target.git("remote", "set-url", "origin", "https://deploy:hunter2@git.example/erp.git", at=target.tree())
    facts = await inspect(shell)
    assert facts.remote_url == "https://***@git.example/erp.git"


async def test_a_host_without_the_checkout_says_so(target: Target, shell: Shell) -> None:
    """A missing folder is reported as a problem, not raised as an error."""
    target.tree().rename(target.hosts["web-1"] / "elsewhere")
    facts = await inspect(shell)
    assert "there is no folder" in facts.problem
    assert facts.revision is None


async def test_presence_of_a_revision_is_known(target: Target, shell: Shell) -> None:
    """Before the first change it must be known that the previous revision is on the host."""
    assert (await inspect(shell, target.head())).present is True
    assert (await inspect(shell, "0" * 40)).present is False
    assert (await inspect(shell)).present is None


async def test_a_revision_is_found_by_hash_branch_and_tag(target: Target, shell: Shell) -> None:
    """An abbreviated hash, a branch and a tag all resolve to the full id of what the remote has now."""
    sha = target.commit("second")
    target.git("tag", "v2")
    target.git("push", "-q", "origin", "v2")
    for name in (sha, sha[:7], sha[:12], "main", "v2"):
        assert await resolve(shell, name) == sha
    assert target.head() != sha


async def test_a_stale_local_branch_is_never_meant(target: Target, shell: Shell) -> None:
    """A stale local branch of the same name is ignored; the remote's branch counts."""
    sha = target.commit("second")
    assert target.git("rev-parse", "main", at=target.tree()) != sha
    assert await resolve(shell, "main") == sha


@pytest.mark.parametrize("name", ["nonsense", "0123456789", "f" * 40])
async def test_an_unknown_revision_is_refused(shell: Shell, name: str) -> None:
    """The sentence names the revision, the host, the branch and what to do."""
    with pytest.raises(Refused) as caught:
        await resolve(shell, name)
    for word in (name, "web-1", "origin/main", "push it"):
        assert word in str(caught.value)


async def test_a_revision_off_the_branch_is_refused(target: Target, shell: Shell) -> None:
    """A commit that exists but was never merged is not released."""
    sha = target.commit("experiment", branch="side")
    target.git("fetch", "-q", "origin", at=target.tree())
    with pytest.raises(Refused, match="is not on origin/main"):
        await resolve(shell, sha)


async def test_a_missing_branch_is_refused_with_the_keys(target: Target) -> None:
    """A branch that the remote does not have is reported as an error of the environment file."""
    environment = target.environment(deploy={"branch": "gone", "directory": "~/erp it's"})
    async with open_host(environment, environment.hosts[0]) as shell:
        with pytest.raises(Refused, match=r"deploy\.branch"):
            await resolve(shell, "gone")


async def test_the_log_tells_what_is_gained_and_what_is_lost(target: Target, shell: Shell) -> None:
    """`>` marks commits that the change adds, `<` those that it removes."""
    first = target.head()
    second = target.commit("second: it's $(here)")
    await resolve(shell, "main")
    author = target.git("log", "-1", "--format=%aN")
    assert await commits_between(shell, first, second) == [f">{second[:7]} {author}: second: it's $(here)"]
    assert await commits_between(shell, second, first) == [f"<{second[:7]} {author}: second: it's $(here)"]


async def test_a_commit_is_one_line_whatever_its_author_is_called(target: Target, shell: Shell) -> None:
    """A long name is cut, and one with odd characters breaks no line and no column."""
    first = target.head()
    target.commit("a subject")
    author = "A \t very ' long \x1b[31m name of somebody <a@example.com>"
    target.git("commit", "-q", "--amend", "--no-edit", "--author", author)
    target.git("push", "-q", "--force", "origin", "HEAD:main")
    second = target.git("rev-parse", "HEAD")
    await resolve(shell, "main")
    [line] = await commits_between(shell, first, second)
    assert line.startswith(f">{second[:7]} A very ' long")
    assert line.endswith("...: a subject")


async def test_migrations_are_read_from_the_commits(target: Target, shell: Shell) -> None:
    """New ones with their text; a changed, a removed and an oddly named one without; other files not at all."""
    before = target.commit(
        "before",
        files={"erp/migrations/1.sql": "CREATE TABLE a ();", "erp/migrations/2.sql": "x", "erp/app.sql": "x"},
    )
    (target.folder / "workshop" / "erp/migrations/2.sql").unlink()
    after = target.commit(
        "after",
        files={
            "erp/migrations/1.sql": "CREATE TABLE b ();",
            "erp/migrations/3 it's $(x).sql": "DROP TABLE a;",
            'erp/migrations/4"\n.sql': "CREATE TABLE c ();",
            "erp/migrations/5.sql": "-- " + "x" * 70_000,
            "erp/migrations/__init__.py": "",
            "alembic/versions/6_f.py": "def upgrade():\n    op.drop_table('a')\n",
            "erp/app.sql": "DROP TABLE a;",
        },
    )
    await resolve(shell, "main")
    patterns = shell.environment.migrations.paths
    marks = {each.path: each.mark for each in mark(await changed_files(shell, before, after, patterns))}
    assert marks == {
        "erp/migrations/1.sql": Mark.UNKNOWN,
        "erp/migrations/2.sql": Mark.UNKNOWN,
        "erp/migrations/3 it's $(x).sql": Mark.CONTRACT,
        '"erp/migrations/4\\"\\n.sql"': Mark.UNKNOWN,
        "erp/migrations/5.sql": Mark.UNKNOWN,
        "alembic/versions/6_f.py": Mark.CONTRACT,
    }
    assert await changed_files(shell, before, after, ()) == []
    assert await changed_files(shell, after, after, patterns) == []
    with pytest.raises(TryAgain, match="cannot compare the migrations"):
        await changed_files(shell, "0" * 40, after, patterns)


SUDO = """#!/bin/sh
[ "$1 $2 $3" = "-l -n systemctl" ] || { : >"$HOME/did-something"; exit 9; }
[ "$4 $5" = "restart tsh-erp" ] || [ "$4 $5" = "stop tsh-erp-workers" ]
"""


async def test_what_sudo_would_refuse_is_known_without_doing_it(target: Target, tmp_path: Path) -> None:
    """A missing sudoers rule is found by the check, not by a deploy that has already stopped the workers."""
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    environment = target.environment(services={"command": [str(sudo), "-n", "systemctl"]})
    async with open_host(environment, environment.hosts[0]) as shell:
        assert await denied(shell) == ("restart tsh-erp-workers",)
    assert not (target.hosts["web-1"] / "did-something").exists()


async def test_where_no_sudo_decides_nothing_is_asked(shell: Shell) -> None:
    """Units of the SSH user itself need no rights."""
    assert await denied(shell) == ()
