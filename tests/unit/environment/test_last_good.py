"""A file that is missing, half written or wrong keeps its last good version, within a process and for the next one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from handlers.environment import last_good, load
from handlers.environment.load import load_environment
from handlers.errors import ConfigError
from tests.unit.environment.files import PASSWORD

FILE = f"""
name = "here"
hosts = [{{name = "web-1", address = "web-1", health_url = "http://web-1/health"}}]
database = {{url = "postgresql://runbook:{PASSWORD}@127.0.0.1:1/none"}}
deploy = {{directory = "/srv/erp"}}
services = {{web = ["tsh-erp"]}}
ssh = {{user = "deploy", key_file = "/key", known_hosts_file = "/known"}}
"""
FAULTS = {
    "missing": "cannot read",
    "a syntax error": "is not valid TOML",
    "half written": "is not valid TOML",
    "empty": "name is missing",
    "an unset variable": "the variable NOT_SET_ANYWHERE is not set",
    "an unknown key": "unknown key sshh",
    "not text": "is not UTF-8 text",
    "another name": "name is 'there'",
    "a directory": "cannot read",
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good environment file; its copies lie in the test's own folder, and nobody waits long."""
    monkeypatch.setattr(last_good, "FOLDER", tmp_path / "state" / "environments")
    monkeypatch.setattr(last_good, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(last_good, "POLL_SECONDS", 0.02)
    monkeypatch.setenv(load.DIRECTORY_VARIABLE, str(tmp_path))
    path = tmp_path / "here.toml"
    path.write_text(FILE)
    return path


def spoil(file: Path, fault: str) -> None:
    """Make the file unusable."""
    file.unlink()
    match fault:
        case "a syntax error":
            file.write_text(FILE + "\nwatch = {")
        case "half written":
            file.write_text(FILE[: len(FILE) // 2])
        case "empty":
            file.touch()
        case "an unset variable":
            file.write_text(
                FILE.replace('user = "deploy"', 'user = "deploy", key_passphrase = "env:NOT_SET_ANYWHERE"')
            )
        case "an unknown key":
            file.write_text("sshh = 1\n" + FILE)
        case "not text":
            file.write_bytes(FILE.encode()[:40] + b"\xc3")
        case "another name":
            file.write_text(FILE.replace('"here"', '"there"'))
        case "a directory":
            file.mkdir()


def forget() -> None:
    """Be a new process."""
    for memory in (load._BY_NAME, last_good._GOOD, last_good._KEPT):
        memory.clear()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_process_goes_on_with_the_file_as_it_was(
    file: Path, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with the fault in the log; the repaired file is used again. What starts something is refused."""
    good = await last_good.last_good(str(file))
    spoil(file, fault)
    monkeypatch.setattr(last_good, "WAIT_SECONDS", 60)
    started_at = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert await last_good.last_good("here") == good
    assert time.monotonic() - started_at < 30
    assert str(file) in caplog.text
    assert FAULTS[fault] in caplog.text
    with pytest.raises(ConfigError, match=FAULTS[fault]):
        load_environment("here")
    file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
    file.write_text(FILE.replace('"/srv/erp"', '"/srv/other"'))
    assert str((await last_good.last_good("here")).deploy.directory) == "/srv/other"


@pytest.mark.parametrize(
    ("by_path", "fault"),
    # A file that is named by its path may have any name: it is another environment.
    [
        (by_path, fault)
        for by_path in (True, False)
        for fault in FAULTS
        if (by_path, fault) != (True, "another name")
    ],
)
async def test_a_new_process_uses_the_kept_copy(
    file: Path, fault: str, by_path: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After a crash; by its name or its path, and from then on by its name."""
    name = str(file) if by_path else "here"
    good = await last_good.last_good(name)
    last_good.keep(name)
    forget()
    spoil(file, fault)
    with caplog.at_level(logging.WARNING):
        assert await last_good.last_good(name) == good
    assert "using the copy of the file in" in caplog.text
    assert await last_good.last_good("here") == good


async def test_a_file_that_is_being_written_is_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process finds the file half written: a moment later it is whole, and no copy is needed."""
    monkeypatch.setattr(last_good, "WAIT_SECONDS", 30)
    spoil(file, "half written")
    reading = asyncio.create_task(last_good.last_good("here"))
    await asyncio.sleep(0.2)
    assert not reading.done()
    file.write_text(FILE)
    assert (await reading).name == "here"


async def test_a_file_that_was_never_good_here_is_the_users_to_mend(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a copy the fault is raised; a name that never existed at once, without waiting for it."""
    spoil(file, "a syntax error")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        await last_good.last_good("here")
    monkeypatch.setattr(last_good, "WAIT_SECONDS", 60)
    started_at = time.monotonic()
    with pytest.raises(ConfigError, match=r"there is no environment 'hree'.*Did you mean here"):
        await last_good.last_good("hree")
    assert time.monotonic() - started_at < 30


async def test_the_copy_is_private(file: Path) -> None:
    """It may contain the password of the database: only its owner can read it, and nobody sees it half written."""
    before = os.umask(0)
    try:
        last_good.keep("here")
    finally:
        os.umask(before)
    [copy] = last_good.FOLDER.iterdir()
    assert PASSWORD in copy.read_text()
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_two_files_of_one_name_have_two_copies(file: Path, tmp_path: Path) -> None:
    """Two rehearsals, or two checkouts: neither goes on with the database of the other."""
    other = tmp_path / "other" / "here.toml"
    other.parent.mkdir()
    other.write_text(FILE.replace("/srv/erp", "/srv/other"))
    for path in (file, other):
        last_good.keep(str(path))
    forget()
    other.unlink()
    assert str((await last_good.last_good(str(other))).deploy.directory) == "/srv/other"


async def test_a_damaged_copy_is_no_copy(file: Path) -> None:
    """A disk was full or a person edited it: the fault of the file is told."""
    last_good.keep("here")
    [copy] = last_good.FOLDER.iterdir()
    copy.write_text(copy.read_text()[:50])
    forget()
    spoil(file, "a syntax error")
    with pytest.raises(ConfigError, match=r"here\.toml is not valid TOML"):
        await last_good.last_good("here")


async def test_a_copy_that_cannot_be_kept_stops_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A state folder that cannot be written is told in the log."""
    monkeypatch.setattr(last_good, "FOLDER", file / "not-a-folder")
    with caplog.at_level(logging.WARNING):
        last_good.keep("here")
    assert "no copy of" in caplog.text


async def test_copies_of_files_that_are_gone_for_good_are_removed(file: Path, tmp_path: Path) -> None:
    """A rehearsal's folder is gone; a file that is only missing keeps its copy."""
    gone = tmp_path / "gone" / "here.toml"
    gone.parent.mkdir()
    gone.write_text(FILE)
    for path in (gone, file):
        last_good.keep(str(path))
    gone.unlink()
    gone.parent.rmdir()
    file.unlink()
    for copy in last_good.FOLDER.iterdir():
        os.utime(copy, (1, 1))
    other = tmp_path / "third.toml"
    other.write_text(FILE)
    last_good.keep(str(other))
    assert {copy.name.rpartition("-")[0] for copy in last_good.FOLDER.iterdir()} == {"here", "third"}


async def test_an_environment_whose_file_was_deleted_is_still_looked_after(
    file: Path, tmp_path: Path
) -> None:
    """Its release may be unfinished. After days it counts as given up, and so does one of another folder."""
    other = tmp_path / "elsewhere" / "there.toml"
    other.parent.mkdir()
    other.write_text(FILE.replace('"here"', '"there"'))
    for path in (file, other):
        last_good.keep(str(path))
    assert last_good.names() == ["here"]
    file.unlink()
    assert last_good.names() == ["here"]
    for copy in last_good.FOLDER.iterdir():
        os.utime(copy, (1, 1))
    assert last_good.names() == []
