"""The rehearsal's target: it comes up like a real place, its revisions fail as they should, nothing stays."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from handlers import config
from rehearsal import erp, lifecycle, processes
from rehearsal.host import WORKERS_UNIT, RehearsalHost
from rehearsal.running import in_thread
from rehearsal.target import Story, Target
from rehearsal.traffic import traffic

UP = """
import asyncio, signal, sys
from pathlib import Path
from rehearsal.target import Target

# Whoever runs the tests in the background made us ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    async with Target.create("empty", folder=Path(sys.argv[1]), keep="keep" in sys.argv) as target:
        print(target.id, flush=True)
        if "keep" not in sys.argv:
            await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def parent(short_folder: Path) -> Iterator[Path]:
    """A folder for the folders of rehearsals; whatever a failed test left in it is ended."""
    yield short_folder
    for folder in folders(short_folder):
        lifecycle.end(folder.name.removeprefix("tds-rehearsal-"), short_folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One target for the tests that only look, or mend what they break."""
    async with Target.create("good", folder=tmp_path_factory.mktemp("place")) as target:
        yield target


@pytest_asyncio.fixture(loop_scope="session")
async def target(parent: Path) -> AsyncIterator[Target]:
    async with Target.create("good", folder=parent) as target:
        yield target


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Poll until *true* holds; the bound only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.05)


def start(parent: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UP, str(parent), *words], stdout=subprocess.PIPE, text=True
    )


def left(parent: Path, pid: int) -> list[int]:
    """The processes that carry the marker of a rehearsal that *pid* started, or work on something in *parent*."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        mark = f"{processes.MARKER}={pid}-".encode()
        if f"{parent}/".encode() in command or any(word.startswith(mark) for word in words):
            found.append(int(entry.name))
    return found


def folders(parent: Path) -> list[Path]:
    return list(parent.glob("tds-rehearsal-*"))


def nothing_left(parent: Path, pid: int) -> bool:
    return not folders(parent) and not left(parent, pid)


async def rows(target: Target, query: str) -> list[tuple[object, ...]]:
    engine = target.engine()
    try:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(query))]
    finally:
        await engine.dispose()


async def switch(target: Target, host: RehearsalHost, name: str) -> None:
    """Put a revision on a host by hand, the way a deploy does in the end."""
    await asyncio.to_thread(git, host, "fetch", "--quiet", "origin")
    await asyncio.to_thread(git, host, "checkout", "--quiet", "--detach", target.revisions[name])
    assert (await asyncio.to_thread(host.systemctl, "restart", "tsh-erp", WORKERS_UNIT)).returncode == 0


def git(host: RehearsalHost, *words: str) -> str:
    """Run git in the host's checkout, as the host would."""
    command = ["git", "-C", str(host.checkout), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=host.environment).stdout


async def health(host: RehearsalHost) -> tuple[int, dict[str, object]]:
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            answer = await http.get(host.health_url)
        except httpx.HTTPError:
            return 0, {}
        return answer.status_code, answer.json()


async def answers(host: RehearsalHost, sha: str) -> tuple[int, dict[str, object]]:
    """Wait until the host's web process runs *sha* and its workers say the same."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, body = await health(host)
        if body and body["revision"] == sha and body["workers"] == {"revisions": [sha]}:
            return status, body
        await asyncio.sleep(0.05)
    raise AssertionError(f"{host.name}: {await health(host)}; {host.log_end()}")


# --- the place ---


async def test_environment_file_describes_the_target(place: Target) -> None:
    """The file loads like any other environment file, and everything it names is there."""
    environment = config.load(str(place.environment_path))
    assert [host.name for host in environment.hosts] == ["web-1", "web-2"]
    assert environment.deploy.strategy == "checkout"
    assert environment.ssh.key_file.exists()
    known = environment.ssh.known_hosts_file.read_text()
    assert all(f"[127.0.0.1]:{host.port} " in known for host in environment.hosts)


async def test_secrets_are_ours_alone(place: Target) -> None:
    """Nobody else may enter the folder or read a secret, and the environment file has none in it."""
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    secret = place.folder / "secrets" / "database"
    files = [secret, place.folder / "secrets" / "key", *(host.folder / "erp.env" for host in place.hosts)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert secret.read_text() not in place.environment_path.read_text()
    assert secret.read_text() not in place.describe() + repr(place)


async def test_backlog_is_the_source_runbooks(place: Target) -> None:
    """58 dead letters, 52 items and 6 invoices, one to three attempts, the real error; and a history."""
    dead = await rows(
        place,
        "SELECT entity_type::text, count(*), min(attempt_count), max(attempt_count),"
        " count(DISTINCT source_entity_id) FROM tds_sync_queue"
        " WHERE status = 'dead_letter' AND error_code = 'xd2s'"
        " AND error_message LIKE 'greenlet_spawn%' GROUP BY 1 ORDER BY 1",
    )
    assert sorted(dead) == [("invoice", 6, 1, 3, 6), ("product", 52, 1, 3, 52)]
    others = await rows(
        place, "SELECT status::text, count(*) FROM tds_sync_queue WHERE status <> 'dead_letter' GROUP BY 1"
    )
    assert others == [("completed", 262)]


async def test_invoices_of_the_backlog_have_parents(place: Target) -> None:
    """Each dead invoice's customer is in the ERP; its item is there or is a dead letter itself."""
    orphans = await rows(
        place,
        "SELECT 1 FROM tds_sync_queue q, jsonb_array_elements(q.validated_payload -> 'line_items') line"
        " WHERE q.status = 'dead_letter' AND q.entity_type = 'invoice' AND NOT ("
        " q.validated_payload ->> 'customer_id' IN (SELECT zoho_contact_id FROM customers) AND ("
        " line ->> 'item_id' IN (SELECT zoho_item_id FROM products)"
        " OR line ->> 'item_id' IN"
        " (SELECT source_entity_id FROM tds_sync_queue WHERE status = 'dead_letter')"
        "))",
    )
    assert orphans == []


def test_checkout_is_clean_and_can_fetch(place: Target) -> None:
    """A running revision leaves its tree clean, and every revision can be had from the remote's main."""
    for host in place.hosts:
        assert git(host, "status", "--porcelain") == ""
        for sha in place.revisions.values():
            git(host, "merge-base", "--is-ancestor", sha, "origin/main")


async def test_database_that_is_down_shows_in_health(place: Target) -> None:
    """The health answer turns 503 with the database and recovers with it."""
    host = place.hosts[0]
    place.server.stop()
    status, body = await health(host)
    assert (status, body["database"]) == (503, "down")
    place.server.restart()
    assert (await health(host))[0] == 200


def test_revisions_have_the_same_ids_everywhere(tmp_path: Path) -> None:
    """Neither the clock, nor the machine, nor the user's git settings reach a commit's id."""
    os.environ["GIT_AUTHOR_NAME"] = "somebody"
    try:
        first, second = (erp.write_origin(tmp_path / name) for name in ("a", "b"))
    finally:
        del os.environ["GIT_AUTHOR_NAME"]
    assert first == second
    assert list(first) == ["broken", "sick", "slow", "treacherous", "fixed"]
    assert len(set(first.values())) == 5


def test_every_story_has_its_revision_and_its_queue() -> None:
    """A story is a revision to release and a queue to begin with."""
    assert {story.value: (story.revision_name, story.variant) for story in Story} == {
        "good": ("fixed", "good"),
        "sick": ("sick", "good"),
        "treacherous": ("treacherous", "good"),
        "slow": ("slow", "good"),
        "empty": ("fixed", "empty"),
        "failed-only": ("fixed", "failed-only"),
    }


# --- the revisions ---


async def test_broken_revision_buries_every_webhook(target: Target) -> None:
    """The real bug: SQLAlchemy itself raises MissingGreenlet, and the event is dead without a retry."""
    engine = target.engine()
    stop = asyncio.Event()
    sending = asyncio.create_task(traffic(engine, stop, 20))
    await asyncio.sleep(1)
    stop.set()
    sent = await sending
    await engine.dispose()
    query = (
        "SELECT error_message, error_code, attempt_count, started_at FROM tds_sync_queue"
        " WHERE status = 'dead_letter' AND created_at > now() - interval '1 minute'"
    )
    deadline = time.monotonic() + 20
    while len(found := await rows(target, query)) < sent:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert sent > 10
    assert all("greenlet_spawn has not been called" in str(row[0]) and row[1] == "xd2s" for row in found)
    assert all(row[3] is None for row in found), "the state write that was swallowed is the cause"
    log = (target.hosts[0].folder / "log" / f"{WORKERS_UNIT}.log").read_text()
    log += (target.hosts[1].folder / "log" / f"{WORKERS_UNIT}.log").read_text()
    assert "Unconsumed column names: processing_started_at" in log
    assert "sqlalchemy.exc.MissingGreenlet" in log


async def test_sick_revision_starts_and_says_503(target: Target) -> None:
    """Its processes run, its units are active, and it does not serve."""
    host = target.hosts[0]
    await switch(target, host, "sick")
    deadline = time.monotonic() + 20
    while (answer := await health(host))[1].get("revision") != target.revisions["sick"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert answer[0] == 503
    assert "tax_rates" in str(answer[1]["reason"])
    assert host.systemctl("is-active", "tsh-erp").stdout == "active\n"


async def test_slow_revision_looks_alive_and_does_nothing(target: Target) -> None:
    """Health is good, the workers' heartbeat is fresh, and a pending event stays pending."""
    for host in target.hosts:
        await switch(target, host, "slow")
        assert (await answers(host, target.revisions["slow"]))[0] == 200
    await redrive_all(target)
    await asyncio.sleep(2)
    assert await statuses(target) == {"pending": 58}


async def test_treacherous_revision_passes_the_canary_and_fails_the_most(target: Target) -> None:
    """The oldest dead letter, which any canary would take, is applied; most of the others are not."""
    for host in target.hosts:
        await switch(target, host, "treacherous")
        assert (await answers(host, target.revisions["treacherous"]))[0] == 200
    oldest = "SELECT id, status::text FROM tds_sync_queue WHERE source_entity_id = '2646610000000114000'"
    await redrive_all(target)
    await until_settled(target, {"completed", "dead_letter", "retry"})
    assert [row[1] for row in await rows(target, oldest)] == ["completed"]
    seen = await statuses(target)
    assert seen["dead_letter"] > seen["completed"]


async def test_fixed_revision_applies_everything(target: Target) -> None:
    """Our core behind `runbook worker` completes the whole backlog."""
    for host in target.hosts:
        await switch(target, host, "fixed")
        assert (await answers(host, target.revisions["fixed"]))[0] == 200
    await redrive_all(target)
    await until_settled(target)
    assert await statuses(target) == {"completed": 58}
    workers = await rows(target, "SELECT DISTINCT revision FROM runbook.worker WHERE stopped_at IS NULL")
    assert workers == [(target.revisions["fixed"],)]


async def redrive_all(target: Target) -> None:
    engine = target.engine()
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE tds_sync_queue SET status = 'pending', attempt_count = 0, error_message = NULL,"
                " error_code = NULL WHERE status = 'dead_letter'"
            )
        )
        await tx.execute(text("SELECT pg_notify('tds_sync_queue', '')"))
    await engine.dispose()


async def statuses(target: Target) -> dict[str, int]:
    """The backlog's events by status."""
    counted = await rows(
        target,
        "SELECT status::text, count(*) FROM tds_sync_queue"
        " WHERE created_at > now() - interval '4 days' GROUP BY 1",
    )
    return {str(status): int(str(count)) for status, count in counted}


async def until_settled(target: Target, settled: Collection[str] = ("completed", "dead_letter")) -> None:
    deadline = time.monotonic() + 30
    while set(seen := await statuses(target)) - set(settled):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.1)


# --- the end ---


async def test_two_rehearsals_do_not_meet(parent: Path) -> None:
    """Two at once have folders, ports and databases of their own; the end of one leaves the other alone."""
    async with Target.create("empty", folder=parent) as first:
        async with Target.create("good", folder=parent) as second:
            ports = [
                port
                for one in (first, second)
                for host in one.hosts
                for port in (host.http_port, host.door.port)
            ]
            assert len({*ports, first.server.port, second.server.port}) == 10
            assert await statuses(first) == {}
            assert await statuses(second) == {"dead_letter": 58}
        assert (await health(first.hosts[0]))[0] == 200
        assert await statuses(first) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_leaves_nothing(parent: Path, number: signal.Signals) -> None:
    """SIGTERM, Ctrl-C or a closed terminal: no process and no folder stays."""
    with start(parent) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        owner.send_signal(number)
        assert owner.wait(timeout=30) != 0
    assert nothing_left(parent, owner.pid)


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.5])
def test_sigterm_in_the_middle_of_the_start_leaves_nothing(parent: Path, delay: float) -> None:
    """Whatever was being started at that moment is taken away."""
    with start(parent) as owner:
        with pytest.raises(subprocess.TimeoutExpired):
            owner.wait(timeout=delay)
        owner.send_signal(signal.SIGTERM)
        owner.wait(timeout=30)
    assert nothing_left(parent, owner.pid)


@pytest.mark.parametrize("delay", [None, 1.0])
def test_next_start_clears_what_a_sigkill_left(parent: Path, delay: float | None) -> None:
    """kill -9, also in the middle of the start: a later rehearsal ends the orphans and removes the folder."""
    with start(parent) as owner:
        assert owner.stdout is not None
        if delay is None:
            assert owner.stdout.readline()
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                owner.wait(timeout=delay)
        owner.kill()
        owner.wait()
    orphaned = folders(parent)
    assert len(lifecycle.sweep(parent)) == len(orphaned)
    assert nothing_left(parent, owner.pid)
    assert lifecycle.sweep(parent) == []


async def test_sweep_spares_the_living_and_the_kept(parent: Path) -> None:
    """Only what nobody owns any more is cleared."""
    async with Target.create("empty", folder=parent) as living:
        with start(parent, "keep") as owner:
            assert owner.stdout is not None
            kept = owner.stdout.readline().strip()
            assert owner.wait(timeout=30) == 0
        assert lifecycle.sweep(parent) == []
        assert lifecycle.kept(parent) == [kept]
        assert (await health(living.hosts[0]))[0] == 200
        environment = config.load(str(parent / f"tds-rehearsal-{kept}" / "rehearsal.toml"))
        async with httpx.AsyncClient(trust_env=False) as http:
            for host in environment.hosts:
                assert (await http.get(host.health_url)).status_code == 200
        assert lifecycle.end(kept, parent)
        assert not lifecycle.end(kept, parent)
    assert nothing_left(parent, owner.pid)


def test_foreign_process_with_the_owners_number_saves_nobody(parent: Path) -> None:
    """A process id that was given again is not the owner: its start time tells."""
    rehearsal_id, folder = lifecycle.make(parent)
    owner = lifecycle.Owner(id=rehearsal_id, pid=os.getpid(), started_at="1")
    lifecycle._write(folder, owner)
    assert lifecycle.sweep(parent) == [rehearsal_id]


async def test_cancelled_start_waits_for_its_thread() -> None:
    """A thread cannot be cancelled: leaving it behind would go on starting things after the clean-up."""
    go, ended = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    asyncio.get_running_loop().call_later(0.2, go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_error_in_the_story_takes_the_target_away(parent: Path) -> None:
    """An exception in the middle of a story is no reason to leave processes behind."""
    with pytest.raises(RuntimeError, match="in the middle"):
        async with Target.create("empty", folder=parent) as target:
            raise RuntimeError("in the middle")
    assert not folders(parent)
    assert processes.find(target.id, target.folder) == []


async def test_target_that_cannot_start_says_why(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one part does not come up there is one error that names it, and the other parts are taken away."""
    monkeypatch.setattr(erp, "HISTORY", {**erp.HISTORY, "bad name": "a revision that git refuses"})
    with pytest.raises(RuntimeError, match="git fast-import failed"):
        async with Target.create("empty", folder=parent):
            raise AssertionError("it must not come up")
    assert not folders(parent)
