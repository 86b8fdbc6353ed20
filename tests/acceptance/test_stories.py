"""The outcome of each story of a rehearsal: on the hosts, in the queue and in the ledger."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from handlers.environment.load import load_environment
from rehearsal.sentinels import MARK
from tests.acceptance.scanning import files, in_files, in_ledger
from tests.acceptance.story_runs import FAULTS, Stories, StoryRun

pytestmark = pytest.mark.timeout(1800)

BACKLOG = 58
DAMAGED_MAX = 12
"""Live webhooks that a bad release may damage before it is rolled back, of three a second."""


async def rows(run: StoryRun, query: str) -> list[dict[str, Any]]:
    """Rows of the target's database, read independently of the runbook."""
    address = load_environment(run.environment).database.url
    password = (run.folder / "secrets" / "database").read_text(encoding="utf-8")
    connection = await asyncpg.connect(address, password=password)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def running(run: StoryRun) -> dict[str, dict[str, Any]]:
    """The health answer of each host."""
    answers = {}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        for host in load_environment(run.environment).hosts:
            answers[host.name] = (await http.get(host.health_url)).json()
    return answers


def trees(run: StoryRun) -> set[str]:
    """The current commits of the hosts: what git says of a checkout, or the folder that `current` links to."""
    environment = load_environment(run.environment)
    directory = Path(str(environment.deploy.directory).removeprefix("~/"))
    folders = [run.folder / host.name / directory for host in environment.hosts]
    if environment.deploy.strategy == "releases":
        return {(folder / "current").resolve().name for folder in folders}
    return {
        subprocess.run(
            ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for folder in folders
    }


async def phases(run: StoryRun) -> list[str]:
    """The phases that the release went through, from the ledger."""
    return [
        row["phase"] for row in await rows(run, "SELECT phase::text FROM runbook.phase_record ORDER BY id")
    ]


async def assert_back_on_broken(run: StoryRun) -> None:
    """Both hosts are on the previous revision: web process, workers, tree and ledger."""
    broken = run.json["revisions"]["broken"]
    for answer in (await running(run)).values():
        assert answer["revision"] == broken
        assert answer["workers"]["revisions"] == [broken]
    assert trees(run) == {broken}
    assert set(run.json["hosts"].values()) == {broken}
    [release] = await rows(run, "SELECT phase::text, finished_at FROM runbook.release")
    assert release["phase"] == "rolled_back"
    assert release["finished_at"] is not None
    told = await rows(run, "SELECT phase::text, sentence FROM runbook.phase_record ORDER BY id")
    quarantines = await rows(run, "SELECT revision, lifted_by FROM runbook.quarantine")
    assert len(quarantines) == 1, told
    [quarantine] = quarantines
    assert quarantine["revision"] != broken
    assert quarantine["lifted_by"] is None


@pytest.mark.story("good")
async def test_a_good_revision_drains_every_dead_letter_and_stays(run: StoryRun) -> None:
    """58 dead letters are drained, the watch is healthy, and both hosts are on the new commit."""
    result = run.json
    assert (run.exit_status, result["exit_code"], result["outcome"]) == (0, 0, "succeeded"), run.stderr
    fixed = result["revisions"]["fixed"]
    answers = await running(run)
    assert {answer["revision"] for answer in answers.values()} == {fixed}
    assert all(answer["workers"]["revisions"] == [fixed] for answer in answers.values())
    assert trees(run) == {fixed}
    assert result["events"]["dead_letter"] == 0
    drained = await rows(run, "SELECT status, entity_type, batch FROM runbook.release_event")
    assert len(drained) == BACKLOG
    assert {event["status"] for event in drained} == {"completed"}
    assert sum(event["entity_type"] == "Invoice" for event in drained) == 6
    assert await phases(run) == [
        "planned", "approved", "deploying", "probing", "canary", "draining", "watching", "succeeded",
    ]  # fmt: skip


@pytest.mark.story("good")
async def test_the_canary_is_one_dead_letter_and_the_first_batch_one_of_each_type(run: StoryRun) -> None:
    """The canary is one event, the first batch one product and one invoice; then the part of each type doubles."""
    batches = await rows(run, "SELECT number, size, finding::text FROM runbook.batch ORDER BY number")
    assert [batch["size"] for batch in batches] == [1, 2, 4, 7, 8, 16, 20]
    assert sum(batch["size"] for batch in batches) == BACKLOG
    assert {batch["finding"] for batch in batches} == {"HEALTHY"}
    first = await rows(run, "SELECT entity_type FROM runbook.release_event WHERE batch = 1")
    assert {row["entity_type"] for row in first} == {"Product", "Invoice"}


@pytest.mark.story("good")
async def test_the_drained_rows_equal_their_payloads(run: StoryRun) -> None:
    """A drained product is in the ERP's table with the name and the price of its webhook."""
    compared = await rows(
        run,
        """SELECT p.name = record->>'name' AS same_name, p.price = (record->>'rate')::numeric AS same_price
           FROM runbook.release_event e
           JOIN tds_sync_queue q ON q.id = e.event_id
           CROSS JOIN LATERAL coalesce(q.validated_payload->'item', q.validated_payload) AS record
           JOIN products p ON p.zoho_item_id = e.source_entity_id
           WHERE e.entity_type = 'Product'
             AND NOT EXISTS (SELECT FROM tds_sync_queue later WHERE later.source_entity_id = e.source_entity_id
                             AND later.created_at > q.created_at)""",
    )
    assert len(compared) > 10
    assert all(row["same_name"] and row["same_price"] for row in compared)


@pytest.mark.story("good")
async def test_every_change_of_a_host_was_intended_and_confirmed(run: StoryRun) -> None:
    """Every operation has an outcome; all have one token; both hosts have operations."""
    operations = await rows(run, "SELECT host, kind, outcome::text, token FROM runbook.operation")
    assert {operation["host"] for operation in operations} == {"web-1", "web-2"}
    assert {operation["outcome"] for operation in operations} == {"done"}
    assert len({operation["token"] for operation in operations}) == 1


@pytest.mark.story("good")
async def test_live_traffic_is_judged_from_the_switch_on_and_its_facts_are_kept(run: StoryRun) -> None:
    """Beside probe and drain and in the watch. What the gate was told tells live webhooks from redriven letters."""
    judged = await rows(
        run,
        """SELECT phase::text, finding::text, inputs FROM runbook.judgement
           WHERE inputs ->> 'rule' = 'sequential' ORDER BY id""",
    )
    assert {judgement["phase"] for judgement in judged} >= {"probing", "draining", "watching"}
    assert judged[-1]["finding"] == "HEALTHY"
    last = json.loads(judged[-1]["inputs"])
    assert last["proof"]["good"] >= 20
    facts = [fact for judgement in judged for fact in json.loads(judgement["inputs"])["facts"]]
    taken = {fact["id"]: fact["kind"] for fact in facts if fact["ev"] == "arrive"}
    redriven = await rows(run, "SELECT event_id FROM runbook.release_event")
    live = await rows(
        run,
        """SELECT q.id FROM tds_sync_queue q
           WHERE q.processing_result ->> 'revision' = (SELECT to_revision FROM runbook.release)
             AND NOT EXISTS (SELECT FROM runbook.release_event e WHERE e.event_id = q.id)
             AND q.started_at < (SELECT max(started_at) FROM runbook.phase_record WHERE phase = 'watching')""",
    )
    assert {taken.get(str(event["id"])) for event in live} == {"live"}
    assert {taken[str(row["event_id"])] for row in redriven if str(row["event_id"]) in taken} == {"replay"}


@pytest.mark.story("good")
async def test_the_report_is_written_private_and_unchanged(run: StoryRun) -> None:
    """Three formats, readable only by their owner, each with the checksum in the ledger."""
    files = await rows(run, "SELECT path, sha256 FROM runbook.file WHERE kind = 'report'")
    assert {Path(file["path"]).suffix for file in files} == {".json", ".md", ".html"}
    for file in files:
        path = Path(file["path"])
        assert path.stat().st_mode & 0o077 == 0
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    assert Path(run.json["report"]).is_file()


@pytest.mark.story("good")
async def test_no_secret_is_in_anything_a_release_wrote(run: StoryRun) -> None:
    """The database password is in no log, report, Prefect file or row of the ledger."""
    secret = (run.folder / "secrets" / "database").read_bytes().strip()
    assert len(secret) > 10
    homes = [run.folder.parent / "state", run.folder / "reports", run.folder / "prefect"]
    written = [path for home in homes for path in home.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [str(path) for path in written if secret in path.read_bytes()] == []
    for table in ("release", "phase_record", "operation", "judgement"):
        found = await rows(run, f"SELECT t::text AS line FROM runbook.{table} t")
        assert not [row for row in found if secret.decode() in row["line"]]


@pytest.mark.story("good")
def test_status_and_history_show_the_release_afterwards(run: StoryRun, stories: Stories) -> None:
    """The view fits 80 columns without colour, and `history` prints JSON."""
    shown = stories.run("status", "-e", run.environment, "--plain")
    assert shown.returncode == 0, shown.stderr
    assert "SUCCEEDED" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    listed = json.loads(stories.run("history", "-e", run.environment, "--json").stdout)
    assert [release["id"] for release in listed["releases"]] == [run.json["release"]]


@pytest.mark.story("good")
def test_after_a_good_release_the_environment_is_good(run: StoryRun, stories: Stories) -> None:
    """The checks by hand agree with the release, and its guard has begun."""
    verified = stories.run("verify", "-e", run.environment, "--json")
    result = json.loads(verified.stdout.strip().splitlines()[-1])
    assert (verified.returncode, result["exit_code"]) == (0, 0), verified.stdout
    guard = stories.run("guard", "-e", run.environment, "--plain")
    assert guard.stdout.startswith(f"release {run.json['release']}: guarded from ")


@pytest.mark.story("good")
def test_a_revision_that_runs_already_is_refused(run: StoryRun, stories: Stories) -> None:
    """Releasing the running revision is refused with a sentence and exit code 5, and changes nothing."""
    again = stories.run("release", "--yes", run.json["revisions"]["fixed"], "-e", run.environment, "--json")
    assert again.returncode == 5
    assert "runs already" in json.loads(again.stdout.strip().splitlines()[-1])["error"]


@pytest.mark.story("good")
@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["release", "no-such-branch"], "there is no revision 'no-such-branch'"),
        (["release", "--", "-x; touch /tmp/owned"], "revision"),
        (["status", "-r", "2001-01-01.1"], "there is no release 2001-01-01.1"),
    ],
)
def test_bad_input_gets_a_sentence_and_changes_nothing(
    run: StoryRun, stories: Stories, words: list[str], needle: str
) -> None:
    """The message names what does not exist; the exit code is 5, and the ledger has no new release."""
    command, *rest = words
    done = stories.run(command, "-e", run.environment, *(rest if rest[0] == "--" else ["--json", *rest]))
    assert done.returncode == 5, done.stdout + done.stderr
    assert needle in done.stderr
    assert "Traceback" not in done.stderr
    listed = json.loads(stories.run("history", "-e", run.environment, "--json").stdout)
    assert len(listed["releases"]) == 1
    assert not os.path.exists("/tmp/owned")


@pytest.mark.soak
@pytest.mark.story("sick")
async def test_a_sick_revision_is_rolled_back_before_any_dead_letter_is_touched(run: StoryRun) -> None:
    """The probe fails: both hosts are rolled back and verified, and the 58 dead letters are unchanged."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    await assert_back_on_broken(run)
    assert run.json["events"]["dead_letter"] == BACKLOG
    assert await rows(run, "SELECT FROM runbook.release_event WHERE redriven_at IS NOT NULL") == []
    assert (
        await rows(run, "SELECT FROM tds_sync_queue WHERE status = 'dead_letter' AND error_code <> 'xd2s'")
        == []
    )
    assert "503" in run.json["reason"]


@pytest.mark.story("treacherous")
async def test_a_treacherous_revision_is_caught_by_its_traffic_or_its_drain_and_rolled_back_everywhere(
    run: StoryRun,
) -> None:
    """Its canary may pass. Live traffic or the drain breaches: evidence saved, hosts back, the rest not drained."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    await assert_back_on_broken(run)
    assert {"probing", "rolling_back"} <= set(await phases(run))
    assert "watching" not in await phases(run)
    canary = await rows(run, "SELECT finding::text FROM runbook.batch WHERE number = 0")
    assert [batch["finding"] for batch in canary] in ([], [None], ["HEALTHY"])
    # At this speed the gate's half seconds let through more than comes in (test_turns.py counts in real time).
    assert run.json["damaged"] <= 3 * DAMAGED_MAX
    untouched = await rows(
        run,
        """SELECT q.status::text, q.error_code, q.attempt_count FROM runbook.release_event e
           JOIN tds_sync_queue q ON q.id = e.event_id WHERE e.batch IS NULL""",
    )
    assert len(untouched) > BACKLOG // 2
    assert {row["status"] for row in untouched} == {"dead_letter"}
    assert {row["error_code"] for row in untouched} == {"xd2s"}
    evidence = await rows(run, "SELECT path FROM runbook.file WHERE kind = 'evidence'")
    assert {Path(row["path"]).name for row in evidence} >= {
        "events.csv",
        "judgements.json",
        "operations.json",
    }
    assert all(Path(row["path"]).stat().st_mode & 0o077 == 0 for row in evidence)


@pytest.mark.story("treacherous")
async def test_planted_secrets_are_found_nowhere(run: StoryRun, stories: Stories) -> None:
    """Password, passphrase, unit's token, remote's address, the address of people, and what a hook printed: not in
    ledger, Prefect's database, logs, evidence, reports, the hosts' state, or the process list.
    """
    planted = {path for path in files(run.folder) if path.read_bytes().startswith(MARK.encode())}
    assert {path.name for path in planted} == {"database", "passphrase", "hook-secret"}
    printed = [row["output"] for row in await rows(run, "SELECT output FROM runbook.operation")]
    assert any("connecting with ***" in output for output in printed)
    told = await rows(
        run, "SELECT topic, tries FROM runbook.delivery JOIN runbook.message ON id = message_id"
    )
    assert {row["topic"] for row in told} >= {
        "release.started",
        "release.rolling_back",
        "release.rolled_back",
    }
    assert max(row["tries"] for row in told) > 0
    address = load_environment(run.environment).database.url
    connection = await asyncpg.connect(address, password=(run.folder / "secrets" / "database").read_text())
    try:
        assert await in_ledger(connection) == []
    finally:
        await connection.close()
    hosts = [path for path in run.folder.glob("web-*/.tds-runbook/*") if path.is_file()]
    assert {path.name for path in hosts} >= {"state.json", "token"}
    written = [stories.state, run.folder / "reports", run.folder / "prefect"]
    assert min(len(list(files(folder))) for folder in written) >= 3
    assert in_files(*written) == []
    assert [path for path in hosts if MARK.encode() in path.read_bytes()] == []
    assert run.processes.looks > 20
    assert run.processes.found == set()


@pytest.mark.story("treacherous")
async def test_a_rolled_back_revision_is_refused_until_its_quarantine_is_lifted(
    run: StoryRun, stories: Stories
) -> None:
    """The plan for a quarantined revision is refused."""
    again = stories.run("plan", run.json["revisions"]["treacherous"], "-e", run.environment)
    assert again.returncode == 5
    assert "is in quarantine: release" in " ".join(again.stdout.split())


@pytest.mark.story("slow")
async def test_workers_without_an_outcome_do_not_pass(run: StoryRun) -> None:
    """Neither canary nor live traffic comes to an end: that is never a pass. The canary is a dead letter again."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    await assert_back_on_broken(run)
    assert re.search(r"no outcome|(\d) of \1 records since minute 0 failed", run.json["reason"])
    assert run.json["damaged"] == 0
    assert run.json["events"]["dead_letter"] == BACKLOG
    dead = await rows(run, "SELECT DISTINCT error_code FROM tds_sync_queue WHERE status = 'dead_letter'")
    assert dead == [{"error_code": "xd2s"}]


@pytest.mark.story("empty")
async def test_without_a_dead_letter_a_synthetic_event_proves_the_workers(run: StoryRun) -> None:
    """Scenario B: a marked event goes through the deployed workers, and neither it nor its row is left behind."""
    assert (run.exit_status, run.json["outcome"]) == (0, "succeeded"), run.stderr
    [canary] = await rows(run, "SELECT sentence FROM runbook.phase_record WHERE phase = 'canary'")
    assert "synthetic" in canary["sentence"]
    marked = await rows(run, "SELECT FROM tds_inbox_events WHERE webhook_headers::text LIKE '%Synthetic%'")
    assert marked == []
    assert (
        await rows(run, "SELECT FROM tds_sync_queue WHERE source_entity_id = 'tds-runbook-synthetic'") == []
    )
    [row] = await rows(
        run, "SELECT zoho_deleted_at, is_active FROM products WHERE zoho_item_id = 'tds-runbook-synthetic'"
    )
    assert row["zoho_deleted_at"] is not None
    assert row["is_active"] is False


@pytest.mark.parametrize(
    "name", ["good", "treacherous", "empty", "slow", pytest.param("sick", marks=pytest.mark.soak)]
)
def test_hosts_ledger_and_queue_agree_also_under_faults(stories: Stories, name: str) -> None:
    """Each fault of the story was injected and mended; nothing is lost or applied twice, and the end is the same."""
    result = stories[name].json
    assert result["inconsistencies"] == [], result
    assert result["consistent"] is True
    assert [f"{fault['kind']} {fault['outcome']}" for fault in result["faults"]] == [
        f"{fault.partition('@')[0]} injected" for fault in FAULTS.get(name, ())
    ], result
    assert all(fault["at"] <= fault["ended_at"] for fault in result["faults"])


@pytest.mark.soak
@pytest.mark.story("failed-only")
async def test_only_failed_events_hold_the_release_and_are_named(run: StoryRun) -> None:
    """Scenario C: nothing is redriven, the sentence names the failed events, and the operator decides."""
    assert (run.exit_status, run.json["outcome"]) == (4, "held"), run.stderr
    assert "in status failed" in run.json["reason"]
    assert "52 Product" in run.json["reason"]
    assert run.json["events"]["failed"] == BACKLOG
    [release] = await rows(run, "SELECT resume_phase::text, finished_at FROM runbook.release")
    assert release == {"resume_phase": "canary", "finished_at": None}


@pytest.mark.soak
@pytest.mark.story("failed-only")
async def test_a_held_release_blocks_others_and_can_be_rolled_back(run: StoryRun, stories: Stories) -> None:
    """A second release is refused while one is held; the held one is rolled back without Prefect or quarantine."""
    other = stories.run("release", run.json["revisions"]["sick"], "-e", run.environment, "--yes")
    assert other.returncode == 5
    assert "is held" in other.stderr
    back = stories.run(
        "rollback", "--yes", "-e", run.environment, "--reason", "nobody knows these events", "--without-prefect",
        "--json", "--no-quarantine",
    )  # fmt: skip
    assert back.returncode == 2, back.stderr
    plan = stories.run("plan", run.json["revisions"]["fixed"], "-e", run.environment, "--json")
    assert "quarantine" not in json.loads(plan.stdout.strip().splitlines()[-1]).get("error", "")
    assert json.loads(back.stdout.strip().splitlines()[-1])["outcome"] == "rolled_back"
    await assert_back_on_broken_by_hand(run)


async def assert_back_on_broken_by_hand(run: StoryRun) -> None:
    """The hosts are on the previous revision, independently of the story's own JSON."""
    broken = run.json["revisions"]["broken"]
    assert {answer["revision"] for answer in (await running(run)).values()} == {broken}
    assert trees(run) == {broken}
