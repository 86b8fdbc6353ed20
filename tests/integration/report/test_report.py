"""The report and the evidence: complete, private, with checksums, and without secrets or customers' data."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from handlers.core import Clock, Core
from handlers.environment.load import env_option, parse
from handlers.environment.redact import redact
from handlers.gate import rules
from handlers.gate.values import Count, Finding, Measurement, Thresholds
from handlers.queue import look
from handlers.queue.event import EntityType
from handlers.queue.insert import insert_event
from handlers.queue.redrive import redrive
from handlers.release.ledger import dead_letters, records, releases
from handlers.release.ledger.intents import LedgerRecorder
from handlers.release.phase import Phase, Release, Verdict
from handlers.report import evidence
from handlers.report.files import folder_of
from handlers.report.gather import gather, write
from handlers.report.render import as_html, as_markdown
from tests.integration.release.steps import begun, deploying

SENTINEL = "s3ntinel-passw0rd"
NASTY = "<script>alert(1)</script> | `x` \n# heading"


@pytest_asyncio.fixture(loop_scope="session")
async def core(engine: AsyncEngine, database_url: str, tmp_path: Path) -> AsyncIterator[Core]:
    """The tools of a step, on the test's database, with a secret that must not leak."""
    secret = tmp_path / "password"
    secret.write_text(SENTINEL)
    environment = parse(
        {
            "name": "staging",
            "database": {
                "url": make_url(database_url).set(password=None).render_as_string(),
                "password": f"file:{secret}",
            },
            "ssh": {"user": "deploy", "key_file": "k", "known_hosts_file": "h"},
            "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1/health"}],
            "deploy": {"directory": "/srv/erp"},
            "services": {},
            "reports": {"directory": str(tmp_path / "reports")},
        },
        source="test",
    )
    async with httpx.AsyncClient() as http:
        yield Core(
            environment=environment, database=engine, http=http, clock=Clock(), random=random.Random(1)
        )


async def event(engine: AsyncEngine, entity: EntityType, key: str, status: str, **values: Any) -> UUID:
    """An event in any status, in one line."""
    async with engine.begin() as tx:
        id_ = await insert_event(tx, entity=entity, key=key, payload_text='{"email": "customer-data"}')
        await tx.execute(
            text(
                "UPDATE tds_sync_queue SET status = CAST(:status AS tds_event_status), "
                "error_message = :error, error_code = :code, attempt_count = 1, "
                "started_at = created_at + interval '4 s', "
                "completed_at = CASE WHEN :status = 'completed' THEN created_at + interval '6 s' END "
                "WHERE id = :id"
            ),
            {"id": id_, "status": status, "error": values.get("error"), "code": values.get("code")},
        )
        return id_


async def rolled_back(core: Core) -> tuple[Release, list[UUID]]:
    """A release with a bit of everything: it drained two products of three, and was rolled back."""
    engine = core.database
    dead = [
        await event(engine, EntityType.PRODUCT, f"46{n}", "dead_letter", error="greenlet_spawn", code="xd2s")
        for n in range(3)
    ]
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE tds_sync_queue SET created_at = created_at - interval '2 days'"))
    release = await deploying(engine)
    await dead_letters.plan_events(
        engine, release, [(n, id_, "Product", f"46{n}") for n, id_ in enumerate(dead)]
    )
    recorder = LedgerRecorder(engine=engine, release=release)
    await recorder.intend("r-switch-web-1", "web-1", "switch", "git checkout")
    await recorder.confirm("r-switch-web-1", "done", 0, f"ok {SENTINEL} postgresql://u:hunter22@db/x {NASTY}")
    async with engine.begin() as tx:
        await dead_letters.record_batch(tx, release, 1, await redrive(tx, dead[:2]))
        await tx.execute(
            text(
                "UPDATE tds_sync_queue SET status = 'completed', started_at = clock_timestamp(), "
                "completed_at = clock_timestamp() + interval '2 s' WHERE id = :id"
            ),
            {"id": dead[0]},
        )
        await tx.execute(
            text("UPDATE tds_sync_queue SET status = 'dead_letter', error_message = :error WHERE id = :id"),
            {"id": dead[1], "error": f"=cmd() password={SENTINEL} {NASTY}"},
        )
    async with engine.connect() as tx:
        states = await look.states(tx, dead[:2])
    await dead_letters.settle_batch(
        engine, release, 1, states=states, finding=Finding.UNHEALTHY, sentence="1 of 2 completed"
    )
    await event(engine, EntityType.INVOICE, "77", "completed")
    await event(engine, EntityType.INVOICE, "78", "failed", error="rate 12345 is no number")
    await event(engine, EntityType.INVOICE, "79", "failed", error="rate 99 is no number")
    measurement = Measurement(counts=(Count(entity="Product", completed=1, failed=1, errors=(NASTY,)),))
    await records.record_judgement(engine, release, rules.judge_batch(measurement, Thresholds()))
    release = await releases.enter(
        engine, release, Phase.ROLLING_BACK, verdict=Verdict.FAIL, sentence=f"1 of 2 completed {NASTY}"
    )
    return release, dead


async def test_the_report_says_what_became_of_everything(core: Core) -> None:
    """Queue, dead letters, batches, times, types, errors, hosts, judgements and operations add up."""
    release, _ = await rolled_back(core)
    report = await gather(core, release)
    assert report["outcome"] == "rolling_back"
    assert report["exit_code"] == 4
    assert report["queue"] == {
        "pending": 0,
        "processing": 0,
        "completed": 2,
        "failed": 2,
        "retry": 0,
        "dead_letter": 2,
    }
    letters = report["dead_letters"]
    assert (letters["planned"], letters["drained"], letters["left"]) == (3, 2, 1)
    assert letters["by_type"] == {"Product": {"completed": 1, "failed": 1, "left": 1}}
    assert letters["why_left"].startswith("rolling_back: 1 of 2 completed")
    assert [(row["entity"], row["replayed"], row["completed"], row["failed"]) for row in report["types"]] == [
        ("Invoice", False, 1, 2),
        ("Product", True, 1, 1),
    ]
    assert [batch["number"] for batch in report["batches"]] == [1]
    assert [row["finding"] for row in report["judgements"]] == ["INCONCLUSIVE"]
    assert [row["outcome"] for row in report["operations"]] == ["done"]


async def test_waiting_is_told_apart_from_processing(core: Core) -> None:
    """A live event's wait counts from its arrival, a replayed one's from its redrive."""
    release, _ = await rolled_back(core)
    times = {row["entity"]: row for row in (await gather(core, release))["processing"]}
    assert times["Invoice"]["applying_p50"] == pytest.approx(2, abs=0.01)
    assert times["Invoice"]["waiting_p50"] == pytest.approx(4, abs=0.01)
    assert times["Product"]["applying_p50"] == pytest.approx(2, abs=0.1)
    assert times["Product"]["waiting_p50"] < 1


async def test_equal_errors_are_one_line(core: Core) -> None:
    """Numbers in an error do not make it another error."""
    release, _ = await rolled_back(core)
    errors = (await gather(core, release))["errors"]
    [rate] = [error for error in errors if "rate" in error["fingerprint"]]
    assert rate["events"] == 2
    assert rate["kinds"] == {"Invoice failed": 2}


async def test_a_report_is_private_and_its_checksum_is_in_the_ledger(core: Core) -> None:
    """Three formats with mode 0600 in a folder with 0700, each with its checksum."""
    release, _ = await rolled_back(core)
    written = await write(core, release)
    proofs = {file.path: file.sha256 for file in await records.files(core.database, release)}
    assert set(written) == {"json", "md", "html"}
    for path in written.values():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert proofs[str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not [path for path in written["json"].parent.iterdir() if path.name.startswith(".")]


async def test_each_environment_has_a_folder_of_its_own(core: Core) -> None:
    """Two environments may have a release of the same id: the environment's name is in the path."""
    release, _ = await rolled_back(core)
    saved = await evidence.save(core, release)
    written = await write(core, release)
    own = core.environment.reports.directory / core.environment.name / release.id
    assert {path.parent for path in written.values()} == {own}
    assert Path(saved.folder) == own / "evidence"
    other = core.environment.model_copy(update={"name": "other"})
    assert folder_of(other, release.id) != own


async def test_folders_of_ours_are_private_and_those_of_the_user_stay(core: Core) -> None:
    """Whatever is created gets 0700, also above; an existing folder of ours is repaired, the user's is not."""
    release, _ = await rolled_back(core)
    reports = core.environment.reports.directory
    theirs = reports.parent
    assert not reports.exists()
    before = theirs.stat().st_mode
    await write(core, release)
    own = reports / core.environment.name / release.id
    for folder in (reports, own.parent, own):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    reports.chmod(0o755)
    own.parent.chmod(0o755)
    own.chmod(0o777)
    await evidence.save(core, release)
    for folder in (own.parent, own, own / "evidence"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert reports.stat().st_mode & 0o777 == 0o755
    assert theirs.stat().st_mode == before


async def test_files_of_an_older_version_are_still_named(core: Core, tmp_path: Path) -> None:
    """The ledger has their whole path, which was not below the environment's name."""
    release, _ = await rolled_back(core)
    old = core.environment.reports.directory / release.id / "evidence" / "events.csv"
    await records.record_file(core.database, release, kind="evidence", path=str(old), sha256="0" * 64)
    files = json.loads((await write(core, release))["json"].read_text(encoding="utf-8"))["files"]
    assert [file["path"] for file in files] == [str(old)]


async def test_the_evidence_is_named_by_its_way_from_the_report(core: Core) -> None:
    """The paths are relative: a rehearsal copies its folder and removes its target."""
    release, _ = await rolled_back(core)
    await evidence.save(core, release)
    written = await write(core, release)
    moved = written["json"].parent.rename(core.environment.reports.directory / "elsewhere")
    files = json.loads((moved / "report.json").read_text(encoding="utf-8"))["files"]
    assert {"evidence/events.csv", "evidence/operations.json"} <= {file["path"] for file in files}
    assert all((moved / file["path"]).is_file() for file in files)
    for form in ("md", "html"):
        text = (moved / f"report.{form}").read_text(encoding="utf-8")
        assert "evidence/events.csv" in text
        assert str(core.environment.reports.directory) not in text


async def test_no_secret_and_no_payload_reaches_a_file(core: Core) -> None:
    """A planted password, a password in an address and the customers' payloads are in none of them."""
    release, _ = await rolled_back(core)
    await evidence.save(core, release)
    await write(core, release)
    files = [path for path in core.environment.reports.directory.rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:
        content = path.read_text(encoding="utf-8")
        assert SENTINEL not in content
        assert "hunter22" not in content
        assert "customer-data" not in content


async def test_text_from_outside_cannot_break_the_page(core: Core) -> None:
    """An error text makes no script, table cell or heading."""
    release, _ = await rolled_back(core)
    written = await write(core, release)
    page = written["html"].read_text(encoding="utf-8")
    assert "<script" not in page
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "br"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balance().feed(page)
    assert opened == []
    lines = written["md"].read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith("# ") and "Release" not in line]
    rows = [line for line in lines if line.startswith("| 202") and "INCONCLUSIVE" in line]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 7


async def test_evidence_holds_the_events_that_did_not_complete(core: Core) -> None:
    """Failed and dead events as CSV without formulas, judgements, operations, checksums."""
    release, dead = await rolled_back(core)
    saved = await evidence.save(core, release)
    assert saved.missing == ()
    folder = Path(saved.folder)
    rows = list(csv.DictReader(io.StringIO((folder / "events.csv").read_text(encoding="utf-8"), newline="")))
    assert {row["key"] for row in rows} == {"461", "462", "78", "79"}
    [failed] = [row for row in rows if row["event_id"] == str(dead[1])]
    assert failed["error"].startswith("'=cmd() password=***")
    assert (failed["batch"], failed["replayed"]) == ("1", "True")
    assert json.loads((folder / "operations.json").read_text(encoding="utf-8"))[0]["exit_status"] == 0
    judged = json.loads((folder / "judgements.json").read_text(encoding="utf-8"))
    assert rules.judge(**judged[0]["inputs"]).finding is Finding.INCONCLUSIVE
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        sha256, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert {file.kind for file in await records.files(core.database, release)} == {"evidence"}


async def test_evidence_never_stops_a_rollback(core: Core) -> None:
    """Without a database, or without time, it lists what is missing and returns."""
    release, _ = await rolled_back(core)
    gone = create_async_engine(core.database.url.set(port=1))
    for broken in (replace(core, database=gone), core):
        limit = 0.0 if broken is core else 5.0
        saved = await evidence.save(broken, release, limit_seconds=limit)
        assert saved.files == ()
        # This environment reads no logs, which takes no time where the database is only away.
        assert len(saved.missing) == (4 if broken is core else 3)
        assert "not saved" in saved.sentence
    await gone.dispose()


async def test_evidence_keeps_its_limit_when_the_database_hangs(core: Core) -> None:
    """A locked table delays a rollback by no more than the limit, and costs no other file."""
    release, _ = await rolled_back(core)
    async with core.database.begin() as tx:
        await tx.execute(text("LOCK TABLE runbook.judgement, runbook.operation IN ACCESS EXCLUSIVE MODE"))
        before = asyncio.get_running_loop().time()
        saved = await evidence.save(core, release, limit_seconds=1.0)
        assert asyncio.get_running_loop().time() - before < 3
    assert saved.files == ("events.csv",)
    assert len(saved.missing) == 2


async def test_a_reports_folder_that_cannot_be_made_is_named(core: Core, tmp_path: Path) -> None:
    """A file with the name of the folder makes evidence missing, and does not fail the rollback."""
    release, _ = await rolled_back(core)
    (tmp_path / "reports").write_text("in the way")
    saved = await evidence.save(core, release)
    assert saved.files == ()
    assert "reports" in saved.missing[0]


async def test_an_empty_release_has_a_report_too(core: Core) -> None:
    """Nothing planned, nothing drained, nothing judged: every format is still written."""
    release = await begun(core.database)
    written = await write(core, release)
    assert "0 planned, 0 drained" in written["md"].read_text(encoding="utf-8")


async def test_freshness_is_told_for_tables_that_exist(core: Core) -> None:
    """The newest row's age, for the target tables with time columns; others are skipped."""
    async with core.database.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO zoho_users (zoho_user_id, name, email, updated_at) "
                "VALUES ('1', 'a', 'a@example.com', now() - interval '1 h')"
            )
        )
        await tx.execute(text("DROP TABLE IF EXISTS bills CASCADE"))
    fresh = {row["table"]: row for row in (await gather(core, await begun(core.database)))["freshness"]}
    assert "bills" not in fresh
    assert 0 < fresh["zoho_users"]["age_seconds"] < 86_400
    assert (fresh["products"]["rows"], fresh["products"]["age_seconds"]) == (0, None)


async def test_the_same_report_reads_the_same(core: Core) -> None:
    """Markdown and HTML are made from the JSON alone."""
    release, _ = await rolled_back(core)
    stored = json.loads(json.dumps(await gather(core, release)))
    assert as_markdown(stored) == as_markdown(stored)
    assert release.id in as_html(stored)


async def test_the_report_begins_with_its_verdict_and_what_to_type(core: Core) -> None:
    """Whoever was not there reads no further than the first screen."""
    release, _ = await rolled_back(core)
    release = await releases.enter(core.database, release, Phase.ROLLED_BACK, verdict=Verdict.PASS)
    written = await write(core, release)
    lines = [line for line in written["md"].read_text(encoding="utf-8").splitlines() if line]
    assert lines[0] == f"# Release {release.id} in staging: rolled back"
    next_ = lines.index("## What to do next")
    assert next_ < 5
    assert lines[next_ + 1].startswith(f"- runbook explain {env_option('staging')} {release.id}")
    page = written["html"].read_text(encoding="utf-8")
    assert page.index("What to do next") < page.index("<h2>")


async def test_the_report_has_the_sums_of_the_decision(core: Core) -> None:
    """Line by line, as `runbook explain` prints them."""
    release, _ = await rolled_back(core)
    report = await gather(core, release)
    assert report["sums"][-1]["sentence"] == report["judgements"][-1]["sentence"]
    assert report["sums"][-1]["lines"]


async def test_after_a_rollback_the_place_is_judged_by_what_came_since(core: Core) -> None:
    """The revision that was left is no evidence about the one that runs."""
    release, _ = await rolled_back(core)
    dead = await event(core.database, EntityType.PRODUCT, "99", "dead_letter", error="boom")
    earlier = "now() - interval '{} s'"
    async with core.database.begin() as tx:
        await tx.exec_driver_sql(
            f"UPDATE tds_sync_queue SET created_at = {earlier.format(90)}, started_at = {earlier.format(60)}"
            f" WHERE id = '{dead}'"
        )
        await tx.exec_driver_sql(
            f"UPDATE runbook.phase_record SET started_at = {earlier.format(120)} WHERE phase = 'deploying'"
        )
    before = {check["name"]: check for check in (await gather(core, release))["checks"]}
    assert before["dead_letters_24h"]["value"] >= 1
    back = await releases.enter(core.database, release, Phase.ROLLED_BACK, verdict=Verdict.PASS)
    after = {check["name"]: check for check in (await gather(core, back))["checks"]}
    assert after["dead_letters_24h"]["value"] == 0
    assert after["success_24h"]["state"] == "no data"


@pytest.mark.parametrize(
    ("given", "masked"),
    [
        ("postgresql://u:pw@h/x", "postgresql://u:***@h/x"),
        ("password = 'abc' rest", "password = '***' rest"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("api_key=abc&x=1", "api_key=***&x=1"),
        ("lock taken, token 118", "lock taken, token 118"),
        ({"a": ["my secret word"]}, {"a": ["my *** word"]}),
    ],
)
def test_what_looks_like_a_secret_is_masked(given: Any, masked: Any) -> None:
    """Known secrets everywhere, and text that looks like a secret."""
    assert redact(given, frozenset({"secret"})) == masked
