"""`runbook logs`, `workers` and `workers restart` as processes: real SSH hosts, real units, real workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.release import lock
from handlers.release.ledger import releases
from handlers.release.phase import Phase
from tests.integration.cli.test_explain import runbook
from tests.integration.host.ssh_target import Target, serve, unit
from tests.integration.host.units import manage, pid
from tests.integration.queue.events import claim, event
from tests.integration.release.steps import in_phase
from tests.integration.worker.steps import until

ROOT = Path(__file__).parents[3]
SECRET = "s3ntinel-passw0rd"
READ = """awk -v since="$1" -v until="$2" '$1 >= since && $1 <= until' "$HOME/$3.log" | tail -n "$4" """
WORKER = """
import asyncio
from handlers.worker import service
asyncio.run(service.serve({url!r}, revision={revision!r}, owner={owner!r}, poll_seconds=0.2))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """Two hosts with a web unit that runs; their workers are written by the tests that need them."""
    folder = tmp_path_factory.mktemp("hand")
    async with serve(folder, "web-1", "web-2") as target:
        yield target


def shown(url: str) -> str:
    """The address with its password, for a file."""
    return make_url(url).render_as_string(hide_password=False)


def environment(
    target: Target, folder: Path, url: str, *, logs: bool = True, workers: str = '["tsh-erp-workers"]'
) -> str:
    """An environment file for these hosts."""
    (folder / "password").write_text(SECRET)
    first = next(iter(target.servers.values()))
    hosts = "".join(
        f'[[hosts]]\nname = "{name}"\naddress = "127.0.0.1"\nport = {server.port}\n'
        f'health_url = "http://127.0.0.1:1/"\n'
        for name, server in target.servers.items()
    )
    words = ["sh", "-c", READ, "logs", "{since}", "{until}", "{unit}", "{lines}"] if logs else []
    files = '["~/backend.log"]' if logs else "[]"
    path = folder / "test.toml"
    path.write_text(
        f"""
name = "test"
[database]
url = "{shown(url)}"
[ssh]
user = "{first.user}"
key_file = "{first.key_file}"
known_hosts_file = "{target.folder / "known_hosts"}"
{hosts}
[deploy]
directory = "~/erp it's"
state_directory = "~/state dir"
[services]
command = ["systemctl"]
web = ["tsh-erp"]
workers = {workers}
logs = {json.dumps(words)}
log_files = {files}
[receiver]
product_url = "http://127.0.0.1:1/"
secret = "file:{folder / "password"}"
""",
        encoding="utf-8",
    )
    return str(path)


def wrote(target: Target, host: str, *lines: tuple[float, str], name: str = "tsh-erp") -> None:
    """Write lines to the log of a unit, with a time in the past."""
    now = time.time()
    told = "".join(f"{now - ago:.0f} {line}\n" for ago, line in lines)
    (target.hosts[host] / f"{name}.log").write_text(told)


async def test_logs_of_every_host_are_printed_without_secrets(
    target: Target, tmp_path: Path, database_url: str
) -> None:
    """Units since a time, the end of a file, the last lines; a log that cannot be read has its problem: exit code 4."""
    place = environment(target, tmp_path, "postgresql://nobody@127.0.0.1:9/nothing")
    wrote(
        target,
        "web-1",
        (9000, "INFO too old"),
        (60, f"ERROR login with {SECRET}"),
        (50, "INFO an order came"),
    )
    wrote(target, "web-2", (60, "INFO \x1b[2Jhello"))
    for host in ("web-1", "web-2"):
        wrote(target, host, name="tsh-erp-workers")
    (target.hosts["web-1"] / "backend.log").write_text("".join(f"line {n}\n" for n in range(5000)))

    code, out, errors = await runbook("logs", "-e", place, "--lines", "3")
    assert (code, errors) == (4, "")
    assert "== web-1 tsh-erp\n" in out
    assert "too old" not in out
    assert SECRET not in out
    assert "ERROR login with ***" in out
    assert "\x1b" not in out
    assert "line 4997\nline 4998\nline 4999\n" in out
    assert "line 4996" not in out
    assert "== web-2 ~/backend.log\ncould not be read: ~/backend.log cannot be read" in out

    words = ("--host", "web-1", "--unit", "tsh-erp", "--since", "4h", "--errors", "--json")
    code, out, _ = await runbook("logs", "-e", place, *words)
    [log] = json.loads(out)["logs"]
    assert (code, log["host"], log["log"], len(log["lines"])) == (0, "web-1", "tsh-erp", 1)


@pytest.mark.parametrize(
    ("words", "logs", "what"),
    [
        (("logs", "--host", "web-9"), True, "there is no host 'web-9' in test: choose one of web-1, web-2"),
        (
            ("logs", "--unit", "nginx"),
            True,
            "there is no log 'nginx': choose one of tsh-erp, tsh-erp-workers",
        ),
        (("logs", "--since", "long"), True, "--since 'long' is no span of time"),
        (("logs", "--lines", "100000"), True, "--lines"),
        (("logs",), False, "no logs are configured for test: set services.logs"),
        (("workers", "restart", "--host", "web-9", "--reason", "x"), True, "there is no host 'web-9'"),
        (("workers", "restart"), True, "--reason is required"),
        (("workers", "restart", "--reason", "x"), True, "has had no release yet"),
    ],
)
async def test_wrong_input_is_one_sentence(
    target: Target, tmp_path: Path, database_url: str, words: tuple[str, ...], logs: bool, what: str
) -> None:
    """An unknown host, log or span, no logs configured, no reason: exit code 5, and no host is asked."""
    place = environment(target, tmp_path, database_url, logs=logs)
    code, _, errors = await runbook(*words, "-e", place)
    assert (code, what in errors, len(errors.strip().splitlines())) == (5, True, 1), errors


async def test_a_host_that_is_away_does_not_hide_the_others(
    target: Target, tmp_path: Path, database_url: str
) -> None:
    """Its problem stands where its log would be."""
    place = environment(target, tmp_path, database_url)
    text_ = Path(place).read_text(encoding="utf-8")
    Path(place).write_text(
        text_.replace(f"port = {target.servers['web-2'].port}", "port = 1"), encoding="utf-8"
    )
    wrote(target, "web-1", (5, "INFO hello"))
    code, out, _ = await runbook("logs", "-e", place, "--unit", "tsh-erp", "--json")
    logs = {log["host"]: log for log in json.loads(out)["logs"]}
    assert (code, len(logs["web-1"]["lines"]), logs["web-1"]["problem"]) == (4, 1, "")
    assert "web-2" in logs["web-2"]["problem"]


async def beat(engine: AsyncEngine, owner: str, ago: float, *, stopped: bool = False) -> None:
    """The heartbeat of a worker, so many seconds ago."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.worker (owner, host, pid, revision, beat_at, stopped_at) VALUES (:owner, 'h-1', "
                "7, 'abcdef0123', now() - make_interval(secs => :ago), CASE WHEN :stopped THEN now() END)"
            ),
            {"owner": owner, "ago": ago, "stopped": stopped},
        )


async def test_workers_are_listed_with_what_they_have_in_hand(
    target: Target, tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Live, stopped, and silent ones; a silent one is exit code 4, one that stopped properly is not."""
    place = environment(target, tmp_path, database_url)
    await beat(engine, "live", 1)
    await beat(engine, "ended", 500, stopped=True)
    await beat(engine, "long ago", 200_000)
    await event(engine, "one")
    await claim(engine, "live")
    code, out, errors = await runbook("workers", "-e", place)
    assert (code, errors) == (0, "")
    assert "live: 1 in hand" in out
    assert "long ago" not in out
    assert max(map(len, out.splitlines())) <= 80
    await beat(engine, "gone", 500)
    code, out, _ = await runbook("workers", "-e", place, "--json")
    signs = {worker["owner"]: worker["sign"] for worker in json.loads(out)["workers"]}
    assert (code, signs) == (4, {"live": "live", "ended": "stopped", "gone": "silent"})


async def test_no_worker_at_all_is_not_good(target: Target, tmp_path: Path, database_url: str) -> None:
    """An empty list must not look like a healthy one."""
    code, out, _ = await runbook("workers", "-e", environment(target, tmp_path, database_url))
    assert (code, "no worker has beaten in the last day" in out) == (4, True)
    code, _, errors = await runbook(
        "workers", "-e", environment(target, tmp_path, "postgresql://x@127.0.0.1:9/x")
    )
    assert (code, "does not answer" in errors) == (1, True)
    code, _, errors = await runbook("workers")
    assert (code, "name the environment" in errors) == (5, True)


def workers_on(target: Target, url: str, *, broken: str = "") -> None:
    """Units that run real workers of this database; on the host *broken* they end at once."""
    for name, home in target.hosts.items():
        program = home / "worker.py"
        told = WORKER.format(url=shown(url), revision="b" * 40, owner=name)
        program.write_text("raise SystemExit(3)" if name == broken else told)
        (home / "run.sh").write_text(f"cd {ROOT} && PYTHONPATH={ROOT} exec {sys.executable} {program}\n")
        unit(home, "tsh-erp-workers", f"/bin/sh {home / 'run.sh'}")


async def restart(place: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and result of a restart."""
    code, out, errors = await runbook(
        *("workers", "restart", "-e", place, "--by", "ops-b", "--reason", "they hang", *words, "--json"),
        HOME=str(Path(place).parent),
    )
    assert out, errors
    return code, json.loads(out.splitlines()[-1])


async def test_a_restart_is_proven_by_new_heartbeats_and_recorded(
    target: Target, tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """One host after the other, under the lock and a new token; the ledger says who and why; the lock is free again."""
    place = environment(target, tmp_path, database_url)
    run = await in_phase(engine, Phase.SUCCEEDED, "test")
    workers_on(target, database_url)
    for home in target.hosts.values():
        await manage(home, "start", "tsh-erp-workers")

    async def both() -> bool:
        async with engine.connect() as tx:
            return (await tx.execute(text("SELECT count(*) FROM runbook.worker"))).scalar_one() == 2

    try:
        await until(both, 60)
        before = [await pid(target, host, "tsh-erp-workers") for host in target.hosts]
        code, told = await restart(place)
        assert (code, told["good"], told["release"]) == (0, True, run.id), told
        assert [host["outcome"] for host in told["hosts"]] == ["done", "done"]
        assert [host["workers"][0].startswith(host["host"]) for host in told["hosts"]] == [True, True]
        after = [await pid(target, host, "tsh-erp-workers") for host in target.hosts]
        assert not set(before) & set(after)
        async with engine.connect() as tx:
            query = "SELECT kind, command, outcome::text, token FROM runbook.operation ORDER BY started_at"
            operations = (await tx.execute(text(query))).all()
            former = run.token or 0
        assert [each.kind for each in operations] == ["restart-start-workers"] * 2
        assert all(each.command.startswith("# by hand, ops-b: they hang\n") for each in operations)
        assert all(each.outcome == "done" and each.token > former for each in operations)
        assert await lock.holder(engine, "test") is None
        assert (await releases.get(engine, run.id)).phase is Phase.SUCCEEDED

        state = target.hosts["web-2"] / "state dir" / "state.json"
        assert f'"{run.id}-start-workers-web-2' in state.read_text()
        # As it stands after `runbook rollback --from-hosts`, of which the ledger does not know yet.
        state.write_text(state.read_text().replace(f"{run.id}-start-workers", f"{run.id}-back-start-workers"))
        code, told = await restart(place, "--host", "web-2")
        assert f'"{run.id}-back-start-workers-web-2' in state.read_text()
        assert (code, [host["host"] for host in told["hosts"]]) == (0, ["web-2"])
        assert await pid(target, "web-1", "tsh-erp-workers") == after[0]

        workers_on(target, database_url, broken="web-1")
        code, told = await restart(place)
        assert (code, [host["outcome"] for host in told["hosts"]]) == (4, ["failed", "not tried"]), told
        assert await pid(target, "web-2", "tsh-erp-workers") not in ("0", after[0])
    finally:
        for home in target.hosts.values():
            await manage(home, "stop", "tsh-erp-workers")


async def test_while_a_release_runs_no_worker_is_restarted(
    target: Target, tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """A release, or another controller that has the lock: refused before any host is asked."""
    place = environment(target, tmp_path, database_url)
    run = await in_phase(engine, Phase.SUCCEEDED, "test")
    await lock.take(engine, "test", run.id, "somebody else")
    code, told = await restart(place)
    assert (code, "test is locked by somebody else" in told["error"]) == (5, True)
    held = await lock.holder(engine, "test")
    assert held is not None
    await lock.free(engine, "test", held.token)
    later = await in_phase(engine, Phase.HELD, "test")
    code, told = await restart(place)
    assert (code, f"release {later.id} of test is held" in told["error"]) == (5, True)
    place = environment(target, tmp_path, database_url, workers="[]")
    code, told = await restart(place)
    assert (code, "has no worker units" in told["error"]) == (5, True)
    async with engine.connect() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM runbook.operation"))).scalar_one() == 0
