"""Wrong input, and problems before a release: one sentence, exit code 5, and nothing is changed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import pytest_asyncio

from rehearsal.hosts.host import RehearsalHost
from rehearsal.hosts.sshd import make_key
from tests.acceptance.killing import Place, last

pytestmark = pytest.mark.timeout(1800)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One target for all tests; each repairs what it breaks."""
    home = tmp_path_factory.mktemp("bad")
    try:
        async with Place.make(home, "good") as place:
            yield place
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def refused(place: Place, needle: str, *words: str, code: int = 5) -> None:
    """The command fails with *code* and a sentence that contains *needle*, also as JSON, and changes nothing."""
    done = await place.command(*words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    result = last(done)
    assert result["exit_code"] == code
    assert needle in result["error"], result["error"]
    assert "\n" not in result["error"]
    assert "Traceback" not in done.stdout + done.stderr
    await unchanged(place)


async def unchanged(place: Place) -> None:
    """No release was recorded, no event changed, and both hosts run the same revision as before."""
    if place.target.server.process is not None and place.target.server.process.poll() is None:
        assert await place.rows("SELECT FROM runbook.release") == []
        assert await place.rows("SELECT FROM runbook.lock WHERE release_id IS NOT NULL") == []
        [dead] = await place.rows("SELECT count(*) AS n FROM tds_sync_queue WHERE status = 'dead_letter'")
        assert dead["n"] == 58
        assert set((await place.running()).values()) == {place.target.revisions["broken"]}


def changed(place: Place, name: str, old: str, new: str) -> str:
    """A copy of the environment file with *old* replaced by *new*."""
    text = place.target.environment_path.read_text(encoding="utf-8")
    assert old in text
    path = place.home / f"{name}.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def git(host: RehearsalHost, *words: str) -> None:
    """Run git in the host's checkout, without the runbook."""
    subprocess.run(["git", *words], cwd=host.checkout, env=host.environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["plan", "main", "-e", "stagin"], "Did you mean staging?"),
        (["release", "main", "-e", "{e}", "--frobnicate"], "No such option: --frobnicate"),
        (["rehearse", "comedy"], "unknown story 'comedy': choose one of good, sick"),
        (["release", "no-such-branch", "-e", "{e}"], "there is no revision 'no-such-branch'"),
        (["release", "{broken}", "-e", "{e}"], "which runs already"),
        (["unblock", "{broken}", "-e", "{e}", "--by", "ops-b"], "matches no quarantined revision"),
        (["resume", "-e", "{e}"], "is held or running"),
        (["rollback", "-e", "{e}", "--reason", "a wish"], "has no release that could be rolled back"),
    ],
)
async def test_what_does_not_exist_is_named(place: Place, words: list[str], needle: str) -> None:
    """An unknown name or option, a running revision, or nothing to resume is named in the message."""
    known = {"e": place.environment, "broken": place.target.revisions["broken"]}
    await refused(place, needle, *(word.format(**known) for word in words))


@pytest.mark.parametrize(
    ("old", "new", "needle"),
    [
        ("consecutive =", "consecutiv =", "unknown key probe.consecutiv; did you mean consecutive?"),
        ("file:{secrets}/database", "env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE is not set"),
        ("file:{secrets}/database", "file:{home}/wrong", "refused the login"),
        ("{secrets}/known_hosts", "{home}/known_hosts", "host key changed"),
        ('{secrets}/key"', '{home}/other"', "was refused"),
    ],
)
async def test_a_wrong_environment_file_is_explained(place: Place, old: str, new: str, needle: str) -> None:
    """A misspelt key, a missing secret, a wrong password, host key or SSH key: the message says what to fix."""
    if not (place.home / "other").exists():
        make_key(place.home / "other")
        key = " ".join((place.home / "other.pub").read_text(encoding="utf-8").split()[:2])
        lines = [f"[127.0.0.1]:{host.door.port} {key}\n" for host in place.target.hosts]
        (place.home / "known_hosts").write_text("".join(lines), encoding="utf-8")
        (place.home / "wrong").write_text("not the password", encoding="utf-8")
    where = {"secrets": place.target.folder / "secrets", "home": place.home}
    path = changed(place, "wrong", old.format(**where), new.format(**where))
    await refused(place, needle, "release", place.target.revision, "-e", path)


@contextmanager
def dirty(place: Place) -> Iterator[str]:
    """A file on a host has local changes."""
    page = place.target.hosts[0].checkout / "web.py"
    page.write_text(page.read_text(encoding="utf-8") + "# a hand\n", encoding="utf-8")
    yield "web.py"
    git(place.target.hosts[0], "checkout", "-q", "web.py")


@contextmanager
def differing(place: Place) -> Iterator[str]:
    """One host has another revision checked out."""
    host = place.target.hosts[0]
    git(host, "fetch", "-q", "origin")
    git(host, "checkout", "-q", "--detach", place.target.revision)
    yield "hosts differ"
    git(host, "checkout", "-q", "--detach", place.target.revisions["broken"])


@pytest.mark.parametrize("trouble", [dirty, differing])
async def test_a_fleet_that_is_not_ready_is_refused(
    place: Place, trouble: Callable[[Place], AbstractContextManager[str]]
) -> None:
    """A host with local changes, or hosts on different revisions: named in the message, and nothing starts."""
    with trouble(place) as needle:
        await refused(place, needle, "release", place.target.revision, "-e", place.environment)


async def test_a_unit_that_was_stopped_beforehand_is_a_warning(place: Place) -> None:
    """Stopped workers are only a warning, because a release starts them."""
    host = place.target.hosts[0]
    where = ("-e", place.environment, "--json")
    await asyncio.to_thread(host.systemctl, "stop", "tsh-erp-workers")
    try:
        done = await place.command("check", *where)
    finally:
        await asyncio.to_thread(host.systemctl, "start", "tsh-erp-workers")
    assert done.returncode == 0, done.stdout
    warnings = [check["sentence"] for check in last(done)["checks"] if check["warns"]]
    assert len(warnings) == 1, warnings
    assert warnings[0].startswith("web-1: tsh-erp-workers is inactive: a release starts it")


async def test_an_unanswered_confirmation_starts_nothing(place: Place) -> None:
    """Without a terminal and without --yes nothing starts, also with --json: that is how to print, and no consent."""
    where = ("-e", place.environment)
    commands = (
        ("release", place.target.revision, *where),
        ("release", place.target.revision, *where, "--json"),
        ("canary", *where, "--json"),
        ("drain", *where, "--json"),
        ("watch", *where, "--json"),
    )
    for words in commands:
        done = await place.command(*words)
        assert done.returncode == 5, done.stdout + done.stderr
        assert done.stderr.strip().endswith("not confirmed; nothing was started. Answer yes, or use --yes.")
        if "--json" in words:
            assert last(done) == {"schema_version": 1, "error": last(done)["error"], "exit_code": 5}
    await unchanged(place)


async def test_a_database_that_is_down_is_a_try_again(place: Place) -> None:
    """Nobody has to act first: exit code 1, before a release and for a command that only reads the ledger."""
    place.target.server.stop()
    try:
        where = ("-e", place.environment)
        await asyncio.gather(
            refused(place, "does not answer", "release", place.target.revision, *where, code=1),
            refused(place, "does not answer", "check", *where, code=1),
            refused(place, "does not answer", "status", *where, code=1),
            refused(place, "does not answer", "queue", "show", *where, code=1),
        )
    finally:
        place.target.server.restart()
        await place.reconnect()
    await unchanged(place)


async def test_a_host_that_is_down_is_named(place: Place) -> None:
    """One host is unreachable by SSH, so no release starts on the other either."""
    door = place.target.hosts[1].door
    # Nothing listens on port 1. The host itself stays as it is, for the other tests.
    environment = changed(place, "host-down", f"port = {door.port}\n", "port = 1\n")
    await refused(place, "web-2", "release", place.target.revision, "-e", environment)
