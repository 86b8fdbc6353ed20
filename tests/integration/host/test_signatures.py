"""New errors in the logs since the deploy: each line is read once, whatever happens to its file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from handlers.core import Core, open_core
from handlers.database import clock
from handlers.errors import ConfigError
from handlers.host import signatures
from handlers.host.log_state import SHOWN_MAX, LogState, NewSignature
from handlers.host.ssh import open_hosts
from rehearsal.postgres import Postgres
from tests.conftest import engine_for
from tests.integration.host.ssh_target import CLOSED_PORT, Target, serve
from tests.unit.environment.files import environment

SECRET = "s3ntinel-passw0rd"
FILE = "~/log/app.log"
WHERE = f"web-1 {FILE}"


class Log:
    """A log file on a host, and the looks at it. The state goes through JSON between two looks, as in the ledger."""

    def __init__(self, core: Core, home: Path, state: LogState) -> None:
        self.core, self.path, self.state = core, home / "log" / "app.log", state
        self.problems: list[str] = []

    def write(self, *lines: str) -> None:
        """Append lines."""
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    async def look(self, core: Core | None = None) -> list[NewSignature]:
        """What is new."""
        core = core or self.core
        async with open_hosts(core.environment, connected=False) as shells:
            state, new, self.problems = await signatures.read_new(core, shells, self.state)
        self.state = LogState.from_json(state.as_json())
        assert self.state == state
        return new

    async def texts(self) -> list[str]:
        """The fingerprints of what is new; nothing may be wrong with the log."""
        new = [signature.fingerprint for signature in await self.look()]
        assert self.problems == []
        return new

    def count(self, word: str) -> int:
        """How often the errors with this word were seen."""
        return sum(each.count for each in self.state.seen if word in each.fingerprint)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One host for all tests."""
    async with serve(tmp_path_factory.mktemp("signatures")) as target:
        yield target


@pytest.fixture
def target(host: Target) -> Target:
    """The host without any log."""
    folder = host.hosts["web-1"] / "log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return host


@pytest_asyncio.fixture(loop_scope="session")
async def core(target: Target, postgres: Postgres, tmp_path: Path) -> AsyncIterator[Core]:
    """The core of a step. Of its database only the clock is needed; its password is a secret that logs may contain."""
    (tmp_path / "password").write_text(SECRET)
    services = {"web": [], "workers": [], "logs": [], "log_files": [FILE]}
    database = {"password": f"file:{tmp_path / 'password'}"}
    engine = engine_for(postgres.url())
    async with open_core(target.environment(database=database, services=services)) as core:
        yield replace(core, database=engine)
    await engine.dispose()


@pytest_asyncio.fixture(loop_scope="session")
async def log(core: Core, target: Target) -> Log:
    """A log with an old error, looked at for the first time."""
    state = LogState(deployed_at=await clock.now(core.database))
    log = Log(core, target.hosts["web-1"], state)
    log.write("INFO began", "ERROR cannot reach 10.0.0.1")
    assert await log.texts() == []
    return log


async def test_an_error_is_new_once_and_an_old_one_never(log: Log) -> None:
    """Numbers make no new kind. What is there again is counted, not told again, and quiet looks cost nothing."""
    log.write(
        "ERROR cannot reach 10.0.0.77", "ERROR no rate for item 31", "INFO fine", "ERROR no rate for item 32"
    )
    [signature] = await log.look()
    assert (signature.fingerprint, signature.count) == ("ERROR no rate for item <n>", 2)
    assert signature.where == (WHERE,)
    assert await log.texts() == []
    log.write("ERROR no rate for item 33")
    assert await log.texts() == []
    assert log.count("no rate") == 3
    assert log.state.seen[0].first_seen == signature.first_seen


@pytest.mark.parametrize("name", ["app.log.1", "app.log-20261129", "app.log.2026-11-29_00"])
async def test_a_rotated_file_is_read_to_its_end(log: Log, name: str) -> None:
    """What it got after the last look is found under its new name, the new file from its start, and nothing twice."""
    log.write("ERROR alpha")
    assert await log.texts() == ["ERROR alpha"]
    log.write("ERROR last words")
    log.path.rename(log.path.with_name(name))
    log.write("ERROR first words")
    assert await log.texts() == ["ERROR last words", "ERROR first words"]
    assert await log.texts() == []
    assert [log.count(word) for word in ("alpha", "last words", "first words")] == [1, 1, 1]


async def test_a_file_that_was_copied_and_emptied_is_read_to_its_end(log: Log) -> None:
    """The same as a rotation, with copytruncate: the inode stays."""
    log.write("ERROR alpha")
    await log.texts()
    log.write("ERROR last words")
    log.path.with_name("app.log.1").write_bytes(log.path.read_bytes())
    os.truncate(log.path, 0)
    log.write("ERROR first words")
    assert await log.texts() == ["ERROR last words", "ERROR first words"]
    assert log.count("alpha") == 1


async def test_a_file_that_was_emptied_is_read_from_its_start_and_named(log: Log) -> None:
    """What it had since the last look is lost for good: that is said, once."""
    log.write(*["INFO padding"] * 20)
    await log.texts()
    os.truncate(log.path, 0)
    log.write("ERROR first words")
    assert [signature.fingerprint for signature in await log.look()] == ["ERROR first words"]
    assert log.problems == [
        f"{WHERE}: it was replaced or emptied, and its former end is gone: that was not read"
    ]
    assert await log.texts() == []


async def test_a_file_that_was_emptied_and_has_grown_again_is_noticed(log: Log) -> None:
    """It has the same inode and is longer than before: its size alone would hide everything at its start."""
    os.truncate(log.path, 0)
    log.write("ERROR first words", *["INFO padding"] * 100)
    assert [signature.fingerprint for signature in await log.look()] == ["ERROR first words"]
    assert len(log.problems) == 1


async def test_a_rotated_file_that_is_gone_is_named(log: Log) -> None:
    """Compressed or removed before it was read to its end: the new file is read, and the loss is no secret."""
    log.write("ERROR last words")
    log.path.unlink()
    log.write("ERROR first words")
    assert [signature.fingerprint for signature in await log.look()] == ["ERROR first words"]
    assert "its former end is gone" in log.problems[0]


async def test_a_missing_file_is_a_problem_at_each_look_until_it_is_there(core: Core, target: Target) -> None:
    """It is never taken for a log without errors. What it has at last was written after the deploy, so it is new."""
    log = Log(core, target.hosts["web-1"], LogState(deployed_at=await clock.now(core.database)))
    for _ in range(2):
        assert await log.look() == []
        assert log.problems == [f"{WHERE}: there is no such file"]
    log.write("ERROR alpha")
    assert await log.texts() == ["ERROR alpha"]


async def test_a_file_that_vanishes_is_a_problem_and_loses_no_line(log: Log) -> None:
    """Between the rename and the new file there is none; then both are read."""
    log.write("ERROR last words")
    log.path.rename(log.path.with_name("app.log.1"))
    assert await log.look() == []
    assert log.problems == [f"{WHERE}: there is no such file"]
    log.write("ERROR first words")
    assert await log.texts() == ["ERROR last words", "ERROR first words"]


async def test_what_is_no_file_is_a_problem(log: Log) -> None:
    """A folder or a device in its place is named, and not read."""
    log.path.unlink()
    log.path.mkdir()
    assert await log.look() == []
    assert log.problems == [f"{WHERE}: it is no regular file"]


async def test_a_line_is_read_when_it_is_whole(log: Log) -> None:
    """A look between two writes of one line makes no error of its half."""
    with log.path.open("a") as file:
        file.write("INFO x\nERROR cannot wri")
    assert await log.texts() == []
    log.write("te to disk 7")
    assert await log.texts() == ["ERROR cannot write to disk <n>"]


async def test_binary_colours_and_endless_lines_are_survived(log: Log) -> None:
    """Nothing in a log can end the reading, forge a part of the answer, or reach the ledger as it is."""
    with log.path.open("ab") as file:
        file.write(b"\x1b[1;31mERROR\x1b[0m in \x1b[33mcolour\x1b[0m\n")
        file.write(b"ERROR zero\x00byte \xff\xfe \x07bell\n")
        file.write(b"\x01position\n1 2 3\n\x01problem\nforged\n")
        file.write(b"-- cursor: s=forged\n")
        file.write(os.urandom(200_000).replace(b"\n", b"x") + b"\n")
        file.write(b"ERROR long " + b"x" * 2_000_000 + b"\n")
        file.write(b"ERROR after all\n")
    found = await log.texts()
    assert found[0] == "ERROR in colour"
    assert found[-1] == "ERROR after all"
    assert any(text.startswith("ERROR long xxx") and len(text) <= 300 for text in found)
    assert all(text.isprintable() for text in found)
    log.write("ERROR next")
    assert await log.texts() == ["ERROR next"]


async def test_secrets_are_masked(log: Log) -> None:
    """A secret of the environment file, and what looks like one, reach neither a page nor the ledger."""
    log.write(f"ERROR login with {SECRET} refused", "ERROR token=abcdef refused")
    await log.texts()
    stored = str(log.state.as_json())
    assert SECRET not in stored
    assert "abcdef" not in stored
    assert log.count("refused") == 2


async def test_a_look_is_bounded(log: Log) -> None:
    """A flood costs one look a bounded part of it, the newest; what was left out is said. Kinds are bounded too."""
    line = "INFO " + "x" * 995
    log.write("ERROR drowned", *[line] * (signatures.BYTES_MAX // 1000 + 1000), "ERROR newest")
    assert [signature.fingerprint for signature in await log.look()] == ["ERROR newest"]
    assert "bytes were left out, it grows too fast" in log.problems[0]
    words = [f"ERROR {chr(97 + a)}{chr(97 + b)}" for a in range(20) for b in range(20)]
    log.write(*words)
    assert len(await log.look()) == SHOWN_MAX - 1
    assert any("300 errors of more kinds were left out" in problem for problem in log.problems)
    assert any("more than 50 new kinds" in problem for problem in log.problems)
    assert len(str(log.state.as_json())) < 20_000
    assert await log.texts() == []


async def test_times_in_a_file_tell_what_was_there_before_the_deploy(core: Core, target: Target) -> None:
    """The first look comes after the switch: what the new revision said while it started is new all the same."""
    log = Log(
        core, target.hosts["web-1"], LogState(deployed_at=await clock.now(core.database) - timedelta(hours=1))
    )

    def at(seconds_ago: float, form: str = "%Y-%m-%d %H:%M:%S,123") -> str:
        return time.strftime(form, time.localtime(time.time() - seconds_ago))

    log.write(
        f"{at(26 * 3600)} ERROR long ago",
        f"{at(2 * 3600)} ERROR before",
        f"{at(2 * 3600)} ERROR before and after",
        "ERROR without a time",
        f"{at(1800)} ERROR before and after",
        f"{at(1800)} ERROR at the start",
        f"[{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() - 1200))}] ERROR in UTC",
    )
    assert [text.split("ERROR ")[1] for text in await log.texts()] == ["at the start", "in UTC"]
    log.write(f"{at(0)} ERROR long ago", f"{at(0)} ERROR before", "ERROR without a time")
    assert [text.split("ERROR ")[1] for text in await log.texts()] == ["long ago"]


async def test_the_file_before_a_rotation_counts_as_before(core: Core, target: Target) -> None:
    """A deploy right after midnight knows yesterday's errors."""
    log = Log(core, target.hosts["web-1"], LogState(deployed_at=await clock.now(core.database)))
    log.write("ERROR of yesterday")
    log.path.rename(log.path.with_name("app.log.1"))
    log.write("INFO a new day")
    assert await log.texts() == []
    log.write("ERROR of yesterday", "ERROR of today")
    assert await log.texts() == ["ERROR of today"]


async def test_any_path_is_one_file(log: Log, target: Target) -> None:
    """Spaces, quotes and wildcards in a path are letters: no other file is read, and nothing of it is run."""
    odd = "~/log/it's $(touch gone) *.log"
    services = log.core.environment.services.model_copy(update={"log_files": (odd,)})
    core = replace(log.core, environment=log.core.environment.model_copy(update={"services": services}))
    log.path = target.hosts["web-1"] / odd.removeprefix("~/")
    log.path.with_name("it's $(touch gone) another.log").write_text("ERROR in another file\n")
    log.write("INFO began")
    assert await log.look(core) == []
    log.write("ERROR alpha")
    log.path.rename(f"{log.path}.1")
    log.write("ERROR beta")
    assert [signature.fingerprint for signature in await log.look(core)] == ["ERROR alpha", "ERROR beta"]
    assert log.problems == []
    assert not (target.hosts["web-1"] / "gone").exists()


async def test_a_host_that_is_away_is_a_problem_and_loses_no_line(log: Log, target: Target) -> None:
    """Its logs are named while it cannot be reached; afterwards the reading goes on where it was."""
    log.write("ERROR while it was away")
    host = log.core.environment.hosts[0].model_copy(update={"port": CLOSED_PORT})
    away = log.core.environment.model_copy(update={"hosts": (host,)})
    assert await log.look(replace(log.core, environment=away)) == []
    assert len(log.problems) == 1
    assert log.problems[0].startswith(f"{WHERE}: web-1 (127.0.0.1:1)")
    assert await log.texts() == ["ERROR while it was away"]


async def test_a_command_of_ones_own_is_asked_for_each_second_once(core: Core, target: Target) -> None:
    """No line is counted twice and none is missed, by the times that it is asked for."""
    read = """awk -v since="$1" -v until="$2" '$1 >= since && $1 <= until' "$HOME/$3.log" | tail -n "$4" """
    command = ["sh", "-c", read, "logs", "{since}", "{until}", "{unit}", "{lines}"]
    services = target.environment(services={"workers": [], "logs": command}).services
    own = replace(core, environment=core.environment.model_copy(update={"services": services}))
    file = target.hosts["web-1"] / "tsh-erp.log"
    log = Log(
        own,
        target.hosts["web-1"],
        LogState(deployed_at=await clock.now(core.database) - timedelta(minutes=1)),
    )
    now = int(time.time())
    file.write_text(f"{now - 7200} ERROR before\n{now - 30} ERROR at the start\n")
    assert await log.texts() == ["<n> ERROR at the start"]
    written = 0
    for _ in range(200):
        with file.open("a") as stream:
            stream.write(f"{int(time.time())} ERROR again\n")
        written += 1
        await log.texts()
        if int(time.time()) >= now + 3:
            break
    for _ in range(200):
        await log.texts()
        if log.count("again") >= written:
            break
    await log.texts()
    assert log.count("again") == written
    file.unlink()
    for _ in range(200):
        await log.look()
        if log.problems:
            break
    assert log.problems[0].startswith("web-1 tsh-erp: ")


@pytest.mark.parametrize("path", ["app.log", "", "/", "/var/log/", "/var/log/a\nb", "~bob/log"])
def test_a_log_file_has_a_whole_path(path: str) -> None:
    """A path that would mean another file, or none, is refused with the file."""
    with pytest.raises(ConfigError, match="log_files"):
        environment(services={"log_files": [path]})
