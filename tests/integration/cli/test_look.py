"""`runbook queue show` and `queue list` as processes, on a real queue; and one event as a person sees it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers.errors import Refused
from handlers.queue import in_hand, limits, settle
from handlers.queue.event import ErrorClass, Status
from handlers.release.ledger import dead_letters, releases
from handlers.status import one_event
from handlers.status.event_view import EventView
from tests.integration.cli.test_explain import runbook
from tests.integration.phases.looks import FILE, looked_at
from tests.integration.queue.events import change, claim, complete, dead_letter, event, failure, missing

LIMIT_SECONDS = 60


def environment(folder: Path, url: str) -> str:
    """An environment file for this database."""
    path = folder / "looked.toml"
    shown = make_url(url).render_as_string(hide_password=False)
    path.write_text(FILE.format(name="looked", url=shown, more=""), encoding="utf-8")
    return str(path)


async def view(engine: AsyncEngine, id_: UUID) -> EventView:
    """One event as it is shown."""
    async with engine.connect() as tx:
        return await one_event.read(tx, id_)


async def test_the_queue_is_counted_listed_and_exported(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """Counts with percentages, the broken bars, what failed last; the list as text, JSON and CSV."""
    place = environment(tmp_path, database_url)
    done = await event(engine, "done", age=60)
    await claim(engine, ids=[done])
    await complete(engine, "a", [done])
    await dead_letter(
        engine, "=1+1", started_at="sql:now()", error_message="no \x1b[31mcustomer 'C-17'" + "x" * 200
    )
    await dead_letter(engine, "older", age=200_000)
    await event(engine, "waits", age=7200)

    code, out, errors = await runbook("queue", "show", "-e", place)
    assert (code, errors) == (0, "")
    assert "        1  25.0 %  completed" in out
    assert "[broken] oldest" in out
    assert "        1 dead: Product, xd2s: greenlet_spawn" in out
    assert out.count("failed last:") == 1
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80

    code, out, _ = await runbook("queue", "show", "-e", place, "--since", "1h", "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["status"]["completed"], shown["percent"]["completed"]) == (1, 50.0)
    assert [each["key"] for each in shown["recent_errors"]] == ["=1+1"]
    assert "C-17" not in out
    assert {each["name"] for each in shown["measurements"]} >= {"success_1h", "queue_depth", "silent_workers"}

    code, out, _ = await runbook("queue", "list", "-e", place, "--status", "dead-letter", "--limit", "1")
    assert code == 0
    assert "=1+1, 3 attempts, xd2s: no" in out
    assert "there are more" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = await runbook("queue", "list", "-e", place, "--entity", "product", "--json")
    assert (code, len(json.loads(out)["events"]), json.loads(out)["more"]) == (0, 4, False)
    code, out, _ = await runbook("queue", "list", "-e", place, "--error", "customer", "--csv")
    [row] = csv.DictReader(io.StringIO(out))
    assert (code, row["key"], row["status"]) == (0, "'=1+1", "dead_letter")


async def test_one_event_is_shown_without_a_value_of_its_payload(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """By the command: what it is, its keys, and that a worker is what it waits for."""
    place = environment(tmp_path, database_url)
    id_ = await event(engine, "4711", validated_payload='sql:\'{"item": {"rate": 17.25}, "name": "Jane"}\'')
    code, out, errors = await runbook("queue", "show", str(id_), "-e", place)
    assert (code, errors) == (0, "")
    assert "item (object), item.rate (number), name (string)" in " ".join(out.split())
    assert "waits for    a worker" in out
    assert "Jane" not in out
    assert "17.25" not in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = await runbook("queue", "show", str(id_), "-e", place, "--json")
    assert (code, json.loads(out)["payload_keys"]["item.rate"]) == (0, "number")
    assert "17.25" not in out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("show", "4711"), "'4711' is no id of an event: `runbook queue list -e "),
        (("show", str(uuid4())), "in the queue: `runbook queue list -e "),
        (("show", str(uuid4()), "--watch"), "leave out --watch and --since"),
        (("show", "--since", "yesterday"), "--since 'yesterday' is no span of time"),
        (("list", "--entity", "invoce"), "did you mean Invoice?"),
        (("list", "--status", "ded_letter"), "did you mean dead_letter?"),
        (("list", "--csv", "--json"), "give one of them"),
        (("list", "--limit", "0"), "--limit"),
    ],
)
async def test_wrong_input_is_one_sentence(
    tmp_path: Path, database_url: str, words: tuple[str, ...], what: str
) -> None:
    """An unknown id, type or status, no duration, or options that exclude each other: exit code 5."""
    place = environment(tmp_path, database_url)
    code, _, errors = await runbook("queue", *words, "-e", place)
    assert (code, what in errors, len(errors.strip().splitlines())) == (5, True, 1), errors


@pytest.mark.parametrize("words", [("show",), ("show", "--watch"), ("list",), ("show", str(uuid4()))])
async def test_a_database_that_is_away_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit code 1, as `runbook status` has it: nobody has to act but to wait."""
    place = environment(tmp_path, "postgresql://nobody@127.0.0.1:9/nothing")
    code, out, errors = await runbook("queue", *words, "-e", place)
    assert (code, out, len(errors.strip().splitlines())) == (1, "", 1), errors
    assert "does not answer" in errors or "not available" in errors


async def test_a_watch_prints_a_line_for_each_look_and_ends_with_ctrl_c(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """In a pipe: one object a look with --json, one line otherwise. Ctrl-C is how it ends, so that is no error."""
    place = environment(tmp_path, database_url)
    await dead_letter(engine, "dead", started_at="sql:now()")
    for words, seen in ((("--json",), '"dead_letter": 1'), (("--plain",), "1 dead_letter")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows.cli", "queue", "show", "--watch", "-e", place, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readline(), LIMIT_SECONDS)
        assert seen in first.decode()
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
        assert (process.returncode, errors.decode()) == (0, "")


async def test_who_has_an_event_is_named(engine: AsyncEngine) -> None:
    """A lease with its end and its worker; a batch in hand; nobody, when the lease has run out."""
    async with engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO runbook.worker (owner, host, pid, revision) VALUES ('w-1', 'web-1', 42, 'abcdef0123')"
            )
        )
    leased, held, lost = [await event(engine, key) for key in ("leased", "held", "lost")]
    await claim(engine, "w-1", ids=[leased, lost])
    await change(engine, lost, lock_expires_at="sql:now() - interval '1 minute'")
    async with engine.begin() as tx:
        await in_hand.begin(tx, 7)
        async with engine.begin() as other:
            await other.execute(
                text("INSERT INTO runbook.in_hand (batch, owner, ids, bytes) VALUES (7, 'w-1', :ids, 1)"),
                {"ids": [held]},
            )
        for id_, ends in ((leased, True), (held, False)):
            shown = await view(engine, id_)
            assert shown.holder is not None
            assert (shown.holder.owner, shown.holder.until is not None) == ("w-1", ends)
            assert shown.holder.worker.startswith("web-1, process 42, revision abcdef0, last beat")
            assert (shown.status, shown.waits_for) == (Status.PROCESSING, [])
    assert (await view(engine, lost)).holder is None


async def test_attempts_are_listed_with_class_code_and_masked_error(engine: AsyncEngine) -> None:
    """Each attempt that failed stays told when the event is completed at last, with what came of it."""
    id_ = await event(engine, "one")
    for message in ("boom 17", "boom 18"):
        await claim(engine, "w", ids=[id_])
        async with engine.begin() as tx:
            failures = [failure(id_, ErrorClass.TRANSIENT, message)]
            await settle.retry_later(tx, owner="w", revision="r1", failures=failures, base_seconds=0.01)
        await change(engine, id_, next_retry_at="sql:now()")
    await claim(engine, "w", ids=[id_])
    await complete(engine, "w", [id_])
    shown = await view(engine, id_)
    assert [(each.error_class, each.code, each.fingerprint) for each in shown.failed_attempts] == [
        ("transient", "X", "boom <n>"),
        ("transient", "X", "boom <n>"),
    ]
    assert (shown.attempts, shown.outcome, shown.worker, shown.revision) == (3, "applied", "w", "r1")
    assert (shown.local_id, shown.row) == ("7", "products has no row for it")
    assert shown.waits_for == []


async def pending_behind(engine: AsyncEngine) -> UUID:
    """An event behind an older one of its record, while the queue is limited."""
    await event(engine, "one", age=60)
    await limits.limit(engine, None, per_ten_seconds=0, seconds=60, by="ops-b", reason="a look")
    return await event(engine, "one")


async def waiting_child(engine: AsyncEngine) -> UUID:
    """An event that waits for two parents, of which the queue knows one."""
    await dead_letter(engine, "parent-1")
    id_ = await event(engine, "child")
    await claim(engine, "w", ids=[id_])
    async with engine.begin() as tx:
        failures = [missing(id_, "parent-1", "parent-2")]
        await settle.retry_later(tx, owner="w", revision="r1", failures=failures)
    return id_


async def buried_stranger(engine: AsyncEngine) -> UUID:
    """A pending event of a type without a handler."""
    return await event(engine, "one", entity_type="sql:'branch'")


async def dead(engine: AsyncEngine) -> UUID:
    """A dead letter of the ERP's own worker, which stores no list of attempts."""
    return await dead_letter(engine, "one", processing_result="sql:'[1]'")


@pytest.mark.parametrize(
    ("make", "sentences"),
    [
        (pending_behind, ["an older event of its record", "limited to 0 events of all types together"]),
        (
            waiting_child,
            ["Product parent-1: its newest event", "parent-2: no event of it", "its next attempt"],
        ),
        (buried_stranger, ["there is no handler for branch"]),
        (dead, ["a redrive: by a release"]),
    ],
)
async def test_what_an_event_waits_for_is_said(
    engine: AsyncEngine, make: Callable[[AsyncEngine], Awaitable[UUID]], sentences: list[str]
) -> None:
    """An older event, a limit, parents and a time, a handler, or somebody who redrives it."""
    found = (await view(engine, await make(engine))).waits_for
    assert len(found) == len(sentences), found
    for sentence, each in zip(sentences, found, strict=True):
        assert sentence in each, found


async def test_the_release_that_redrove_an_event_is_named(
    tmp_path: Path, database_url: str, engine: AsyncEngine
) -> None:
    """With its batch and when, also when the same event was only planned by another one."""
    id_ = await dead_letter(engine, "one")
    async with looked_at(tmp_path, database_url) as (core, run, _):
        await dead_letters.plan_events(core.database, run, [(0, id_, "Product", "one")])
        assert [each.redriven_at for each in (await view(engine, id_)).redrives] == [None]
        async with engine.begin() as tx:
            await tx.execute(text("UPDATE runbook.release_event SET redriven_at = now(), batch = 3"))
        [redrive] = (await view(engine, id_)).redrives
        assert (redrive.release, redrive.batch) == (run.id, 3)
        assert (await releases.get(core.database, redrive.release)).id == run.id


async def test_a_queue_without_our_ledger_shows_its_events(erp_url: str, tmp_path: Path) -> None:
    """The commands look at an ERP's queue before anything of ours is in its database."""
    from tests.conftest import engine_for

    engine = engine_for(erp_url)
    try:
        id_ = await event(engine, "one")
        shown = await view(engine, id_)
        assert (shown.waits_for, shown.redrives, shown.holder) == (["a worker"], [], None)
        with pytest.raises(Refused, match="there is no event"):
            await view(engine, uuid4())
    finally:
        await engine.dispose()
    place = environment(tmp_path, erp_url)
    code, out, _ = await runbook("queue", "show", "-e", place, "--json")
    shown_: dict[str, Any] = json.loads(out)
    assert (code, shown_["status"]["pending"], shown_["measurements"]) == (0, 1, [])
