"""`runbook explain` and `runbook replay` as processes: on a real ledger, and on files without any of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.gate.values import Finding
from tests.integration.phases.looks import applied, buried, look, looked_at

LIMIT_SECONDS = 90


async def runbook(*words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in an environment without ours."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "flows.cli", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )
    out, errors = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def rolled_back(folder: Path, url: str) -> tuple[str, str]:
    """A release that is looked at until the gate finds a breach: its environment file and its id."""
    async with looked_at(folder, url, since=600) as (core, run, looker):
        for number in range(3):
            await applied(core.database, f"good{number}")
        await look(core, run, looker)
        for number in range(6):
            await buried(core.database, f"bad{number}")
        found = await look(core, run, looker)
        assert found.finding is Finding.UNHEALTHY, found.sentence
        return str(folder / "looked.toml"), run.id


async def test_a_real_release_is_explained_and_replayed(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """From the ledger as the gate has written it: every number again, the same decisions, and an answer to what if."""
    place, id_ = await rolled_back(tmp_path, database_url)
    code, out, errors = await runbook("explain", id_, "-e", place)
    assert (code, errors) == (0, "")
    assert "2 looks" in out
    assert "E(q)  = " in out
    assert "1 / (alpha 0.01 * share" in out
    assert "DIFFERS" not in out
    assert max(map(len, out.splitlines())) < 200

    code, out, errors = await runbook("explain", "-e", place, "--all", "--json")
    shown = json.loads(out)
    assert (code, shown["looks"], len(shown["explained"])) == (0, 2, 2)
    assert shown["explained"][-1]["weighed"]["odds"]["same"]

    code, out, _ = await runbook("replay", id_, "-e", place)
    assert code == 0
    assert out.startswith("same decisions: 2 looks")

    code, out, _ = await runbook(
        "replay", id_, "-e", place, "--ok", "0.3", "--tolerable", "0.2", "--bad", "0.1"
    )
    assert code == 0
    assert "with these numbers nothing is decided by look 2" in out
    code, out, _ = await runbook("replay", id_, "-e", place, "--bad", "0.85", "--json")
    answer = json.loads(out)
    assert (answer["same"], answer["ends"]["look"], answer["ends"]["finding"]) == (True, 2, "UNHEALTHY")

    async with engine.begin() as tx:
        await tx.execute(
            text("UPDATE runbook.judgement SET sentence = 'all is well' WHERE finding = 'UNHEALTHY'")
        )
    code, out, _ = await runbook("replay", id_, "-e", place)
    assert code == 1
    assert "first difference: look 2" in out
    assert "stored  UNHEALTHY: all is well" in out
    code, out, _ = await runbook("explain", id_, "-e", place)
    assert (code, "judged again from the stored inputs: DIFFERS" in out) == (0, True)

    async with engine.begin() as tx:
        await tx.execute(text("UPDATE runbook.judgement SET inputs = inputs - 'begin'"))
    code, _, errors = await runbook("replay", id_, "-e", place)
    assert (code, "look 1 cannot be judged again" in errors) == (5, True)
    code, out, _ = await runbook("explain", id_, "-e", place)
    assert (code, "cannot be judged again" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("replay",), "--environment is required"),
        (("replay", "2026-1.1", "--events", "x"), "not both"),
        (("replay", "2026-1.1", "-e", "nowhere"), "nowhere"),
    ],
)
async def test_a_command_line_that_cannot_be_is_refused(words: tuple[str, ...], what: str) -> None:
    """One sentence and exit code 5."""
    code, _, errors = await runbook(*words)
    assert (code, what in errors, len(errors.strip().splitlines())) == (5, True, 1), errors


async def test_a_release_that_is_not_there_is_refused(tmp_path: Path, database_url: str) -> None:
    """Unknown, not judged yet, or numbers that contradict each other."""
    async with looked_at(tmp_path, database_url) as (_, run, _):
        place = str(tmp_path / "looked.toml")
    for words, what in (
        (("explain", "2020-01-01.1"), "2020-01-01.1"),
        (("replay", "2020-01-01.1"), "2020-01-01.1"),
        (("replay", run.id), "has not been judged yet"),
    ):
        code, _, errors = await runbook(*words, "-e", place)
        assert (code, what in errors) == (5, True), errors
    code, out, _ = await runbook("explain", "-e", place)
    assert (code, "nothing has been judged yet" in out) == (0, True)


def events(*, dies: bool, end: int = 1800) -> str:
    """One new record every five seconds, as events."""
    told: list[dict[str, Any]] = []
    for at in range(0, end, 5):
        about = {"id": at, "seg": "PRODUCT", "key": f"k{at}", "arrived": at}
        told += [
            {"ev": "arrive", "t": at, **about},
            {"ev": "dead" if dies else "done", "t": at + 1, "id": at},
        ]
    return "\n".join(map(json.dumps, told)) + "\n"


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (events(dies=False), 0, r"promote  minute 30\.0  360 of 360 records"),
        (
            events(dies=True),
            2,
            r"rollback  minute 2\.\d  PRODUCT: 3\d of 3\d records since minute 0 failed",
        ),
        ('{"segments": ["PRODUCT"]}\n', 4, "not decided  minute 30.0  no live event was taken"),
    ],
)
async def test_a_file_is_judged_without_database_and_environment(
    tmp_path: Path, content: str, code: int, says: str
) -> None:
    """Its last decision is the exit code: 0 passes, 2 rolls back, 4 is not decided."""
    path = tmp_path / "events.jsonl"
    path.write_text(content, encoding="utf-8")
    exit_code, out, errors = await runbook("replay", "--events", str(path))
    assert (exit_code, errors) == (code, "")
    assert re.match(says, out), out
    exit_code, out, _ = await runbook("replay", "--events", str(path), "--json")
    assert (exit_code, json.loads(out)["decision"]) == (code, out and says.split("  ", maxsplit=1)[0])


async def test_a_file_is_judged_without_loading_what_it_does_not_need(tmp_path: Path) -> None:
    """Neither Prefect nor the database's driver is imported: it works where only the program is installed."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"segments": ["PRODUCT"]}\n', encoding="utf-8")
    script = (
        "import sys; from flows.cli.explain import replay; from pathlib import Path;"
        f"code = replay(events=Path({str(path)!r}));"
        "print(code, sorted({'prefect', 'asyncpg', 'sqlalchemy', 'paramiko'} & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
    assert out.decode().splitlines()[-1] == "4 []"


async def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, empty, binary, a line of 100 MB: the file, the line and what is wrong, at exit code 5."""
    long = tmp_path / "long.jsonl"
    with long.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(255, 0, -1)))
    (tmp_path / "half.jsonl").write_text(
        '{"ev": "upstream", "t": 1, "up": true}\n{"ev": "do', encoding="utf-8"
    )
    for name, what in (
        ("missing.jsonl", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("empty.jsonl", "the file is empty"),
        ("binary.jsonl", "line 1: not text in UTF-8"),
        ("long.jsonl", "line 1: longer than"),
        ("half.jsonl", "line 2: not JSON"),
    ):
        code, out, errors = await runbook("replay", "--events", str(tmp_path / name))
        assert (code, out) == (5, ""), name
        assert what in errors, errors
        assert len(errors.strip().splitlines()) == 1
    code, out, errors = await runbook("replay", "--events", str(tmp_path / "half.jsonl"), "--json")
    assert (code, json.loads(out)["exit_code"]) == (5, 5)


async def test_a_pruned_release_is_shown_and_not_judged_again(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """What was found stays; `replay` says what was dropped. Without a terminal nothing is dropped without `--yes`."""
    place, id_ = await rolled_back(tmp_path, database_url)
    code, out, _ = await runbook("db", "prune", "-e", place)
    assert (code, out) == (0, "nothing to drop: the ledger has no details that are older than 90 days\n")
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE runbook.release SET phase = 'rolled_back', finished_at = now() - interval '100 days'"
            )
        )
    code, _, errors = await runbook("db", "prune", "-e", place, "--json")
    assert (code, "--yes" in errors) == (5, True)
    code, _, errors = await runbook("db", "prune", "-e", place, "--days", "7", "--yes")
    assert (code, "31" in errors) == (5, True)
    code, out, _ = await runbook("replay", id_, "-e", place)
    assert out.startswith("same decisions: 2 looks")

    code, out, errors = await runbook("db", "prune", "-e", place, "--yes")
    assert (code, errors) == (0, "")
    assert "dropped, older than 90 days: details of releases: 1 " in out
    code, out, _ = await runbook("explain", id_, "-e", place)
    assert (code, "records since minute" in out) == (0, True)
    code, _, errors = await runbook("replay", id_, "-e", place)
    assert (code, "dropped by `runbook db prune" in " ".join(errors.split())) == (5, True), errors
