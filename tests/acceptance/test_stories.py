"""The stories of a rehearsal, looked at on the hosts, in the queue and in the ledger when they have ended."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from handlers.environment.load import load_environment
from tests.acceptance.story_runs import Stories, Told

pytestmark = pytest.mark.timeout(900)

BACKLOG = 58


async def rows(told: Told, query: str) -> list[dict[str, Any]]:
    """What the target's database says, asked by ourselves."""
    url = load_environment(told.environment).database.sqlalchemy_url()
    connection = await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database
    )
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def running(told: Told) -> dict[str, dict[str, Any]]:
    """What the running process of each host answers."""
    answers = {}
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        for host in load_environment(told.environment).hosts:
            answers[host.name] = (await http.get(host.health_url)).json()
    return answers


def trees(told: Told) -> set[str]:
    """The commits that the checkouts of the hosts stand on, asked from git."""
    environment = load_environment(told.environment)
    return {
        subprocess.run(
            ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
            cwd=told.folder / host.name / Path(str(environment.deploy.directory).removeprefix("~/")),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for host in environment.hosts
    }


async def phases(told: Told) -> list[str]:
    """The phases that the release went through, from the ledger."""
    return [
        row["phase"] for row in await rows(told, "SELECT phase::text FROM runbook.phase_record ORDER BY id")
    ]


async def assert_back_on_broken(told: Told) -> None:
    """Both hosts run the former revision: the process, its workers and the tree say so, and the ledger too."""
    broken = told.json["revisions"]["broken"]
    for answer in (await running(told)).values():
        assert answer["revision"] == broken
        assert answer["workers"]["revisions"] == [broken]
    assert trees(told) == {broken}
    assert set(told.json["hosts"].values()) == {broken}
    [release] = await rows(told, "SELECT phase::text, finished_at FROM runbook.release")
    assert release["phase"] == "rolled_back"
    assert release["finished_at"] is not None
    [left] = await rows(told, "SELECT revision, lifted_by FROM runbook.quarantine")
    assert left["revision"] != broken
    assert left["lifted_by"] is None


@pytest.mark.story("good")
async def test_a_good_revision_drains_every_dead_letter_and_stays(told: Told) -> None:
    """From no success at all to 58 drained dead letters, a healthy watch and both hosts on the new commit."""
    said = told.json
    assert (told.exit_status, said["exit_code"], said["outcome"]) == (0, 0, "succeeded"), told.stderr
    fixed = said["revisions"]["fixed"]
    answers = await running(told)
    assert {answer["revision"] for answer in answers.values()} == {fixed}
    assert all(answer["workers"]["revisions"] == [fixed] for answer in answers.values())
    assert trees(told) == {fixed}
    assert said["events"]["dead_letter"] == 0
    drained = await rows(told, "SELECT status, entity_type, batch FROM runbook.release_event")
    assert len(drained) == BACKLOG
    assert {event["status"] for event in drained} == {"completed"}
    assert sum(event["entity_type"] == "Invoice" for event in drained) == 6
    assert await phases(told) == [
        "planned", "approved", "deploying", "probing", "canary", "draining", "watching", "succeeded",
    ]  # fmt: skip


@pytest.mark.story("good")
async def test_the_canary_is_one_dead_letter_and_the_first_batch_one_of_each_type(told: Told) -> None:
    """Exactly one event goes first; then one product and one invoice; then batches double."""
    batches = await rows(told, "SELECT number, size, finding::text FROM runbook.batch ORDER BY number")
    assert [batch["size"] for batch in batches[:4]] == [1, 2, 4, 8]
    assert sum(batch["size"] for batch in batches) == BACKLOG
    assert {batch["finding"] for batch in batches} == {"HEALTHY"}
    first = await rows(told, "SELECT entity_type FROM runbook.release_event WHERE batch = 1")
    assert {row["entity_type"] for row in first} == {"Product", "Invoice"}


@pytest.mark.story("good")
async def test_the_drained_rows_say_what_their_payloads_say(told: Told) -> None:
    """A drained product stands in the ERP's table with the name and the price of its webhook."""
    compared = await rows(
        told,
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
async def test_every_change_of_a_host_was_intended_and_confirmed(told: Told) -> None:
    """No operation without an outcome, all under one token, on both hosts."""
    operations = await rows(told, "SELECT host, kind, outcome::text, token FROM runbook.operation")
    assert {operation["host"] for operation in operations} == {"web-1", "web-2"}
    assert {operation["outcome"] for operation in operations} == {"done"}
    assert len({operation["token"] for operation in operations}) == 1


@pytest.mark.story("good")
async def test_the_watch_judged_live_traffic_and_kept_its_inputs(told: Told) -> None:
    """Judgements of the watch have the counts they were made from, and the replayed events are not among them."""
    judged = await rows(
        told, "SELECT finding::text, inputs FROM runbook.judgement WHERE phase = 'watching' ORDER BY id"
    )
    assert len(judged) >= 10
    assert judged[-1]["finding"] == "HEALTHY"
    counts = json.loads(judged[-1]["inputs"])["seen"]["counts"]
    # Replays are judged apart: a live count that had swallowed the 58 would be larger than what came in.
    [live] = await rows(
        told,
        """SELECT count(DISTINCT (entity_type, source_entity_id)) AS n FROM tds_sync_queue
           WHERE created_at > (SELECT min(started_at) FROM runbook.phase_record WHERE phase = 'probing')""",
    )
    assert 20 <= sum(count["completed"] for count in counts) <= live["n"]


@pytest.mark.story("good")
async def test_the_report_is_written_private_and_unchanged(told: Told) -> None:
    """Three forms, readable by their owner alone, each with the checksum that the ledger keeps."""
    files = await rows(told, "SELECT path, sha256 FROM runbook.file WHERE kind = 'report'")
    assert {Path(file["path"]).suffix for file in files} == {".json", ".md", ".html"}
    for file in files:
        path = Path(file["path"])
        assert path.stat().st_mode & 0o077 == 0
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    assert Path(told.json["report"]).is_file()


@pytest.mark.story("good")
async def test_no_secret_stands_in_anything_a_release_wrote(told: Told) -> None:
    """The database's password is in no log, no report, no Prefect file and no row of the ledger."""
    secret = (told.folder / "secrets" / "database").read_bytes().strip()
    assert len(secret) > 10
    homes = [told.folder.parent / "state", told.folder / "reports", told.folder / "prefect"]
    written = [path for home in homes for path in home.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [str(path) for path in written if secret in path.read_bytes()] == []
    for table in ("release", "phase_record", "operation", "judgement"):
        found = await rows(told, f"SELECT t::text AS said FROM runbook.{table} t")
        assert not [row for row in found if secret.decode() in row["said"]]


@pytest.mark.story("good")
def test_status_and_history_show_the_release_afterwards(told: Told, stories: Stories) -> None:
    """The view is readable at 80 columns without colour, and every command speaks JSON."""
    shown = stories.run("status", "-e", told.environment, "--plain")
    assert shown.returncode == 0, shown.stderr
    assert "SUCCEEDED" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    listed = json.loads(stories.run("history", "-e", told.environment, "--json").stdout)
    assert [release["id"] for release in listed["releases"]] == [told.json["release"]]


@pytest.mark.story("good")
def test_a_revision_that_runs_already_is_refused(told: Told, stories: Stories) -> None:
    """Releasing what runs changes nothing, says so in a sentence, and ends with 5."""
    again = stories.run("release", told.json["revisions"]["fixed"], "-e", told.environment, "--json")
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
    told: Told, stories: Stories, words: list[str], needle: str
) -> None:
    """What does not exist is named, with what to do; the exit code is 5 and the ledger has no new release."""
    command, *rest = words
    done = stories.run(command, "-e", told.environment, *(rest if rest[0] == "--" else ["--json", *rest]))
    assert done.returncode == 5, done.stdout + done.stderr
    assert needle in done.stderr
    assert "Traceback" not in done.stderr
    listed = json.loads(stories.run("history", "-e", told.environment, "--json").stdout)
    assert len(listed["releases"]) == 1
    assert not os.path.exists("/tmp/owned")


@pytest.mark.story("sick")
async def test_a_sick_revision_is_rolled_back_before_any_dead_letter_is_touched(told: Told) -> None:
    """The probe says no: back on both hosts, verified, and the 58 dead letters as they were."""
    assert (told.exit_status, told.json["outcome"]) == (2, "rolled_back"), told.stderr
    await assert_back_on_broken(told)
    assert told.json["events"]["dead_letter"] == BACKLOG
    assert await rows(told, "SELECT FROM runbook.release_event WHERE redriven_at IS NOT NULL") == []
    assert (
        await rows(told, "SELECT FROM tds_sync_queue WHERE status = 'dead_letter' AND error_code <> 'xd2s'")
        == []
    )
    assert "503" in told.json["reason"]


@pytest.mark.story("treacherous")
async def test_a_treacherous_revision_is_caught_after_its_canary_and_taken_back_everywhere(
    told: Told,
) -> None:
    """The canary passes, the drain breaches: evidence kept, both hosts back, the undrained untouched."""
    assert (told.exit_status, told.json["outcome"]) == (2, "rolled_back"), told.stderr
    await assert_back_on_broken(told)
    [canary] = await rows(told, "SELECT finding::text FROM runbook.batch WHERE number = 0")
    assert canary["finding"] == "HEALTHY"
    untouched = await rows(
        told,
        """SELECT q.status::text, q.error_code, q.attempt_count FROM runbook.release_event e
           JOIN tds_sync_queue q ON q.id = e.event_id WHERE e.batch IS NULL""",
    )
    assert len(untouched) > BACKLOG // 2
    assert {row["status"] for row in untouched} == {"dead_letter"}
    assert {row["error_code"] for row in untouched} == {"xd2s"}
    evidence = await rows(told, "SELECT path FROM runbook.file WHERE kind = 'evidence'")
    assert {Path(row["path"]).name for row in evidence} >= {
        "events.csv",
        "judgements.json",
        "operations.json",
    }
    assert all(Path(row["path"]).stat().st_mode & 0o077 == 0 for row in evidence)


@pytest.mark.story("treacherous")
async def test_a_revision_that_was_left_is_refused_until_a_person_lifts_that(
    told: Told, stories: Stories
) -> None:
    """The same bad revision cannot simply be released again."""
    again = stories.run("plan", told.json["revisions"]["treacherous"], "-e", told.environment)
    assert again.returncode == 5
    assert "is in quarantine: release" in " ".join(again.stdout.split())


@pytest.mark.story("slow")
async def test_workers_that_bring_no_outcome_do_not_pass(told: Told) -> None:
    """The canary has no end within its limit: no data is no pass; it is back where it was, with its own error."""
    assert (told.exit_status, told.json["outcome"]) == (2, "rolled_back"), told.stderr
    await assert_back_on_broken(told)
    assert "no outcome" in told.json["reason"]
    assert told.json["events"]["dead_letter"] == BACKLOG
    dead = await rows(told, "SELECT DISTINCT error_code FROM tds_sync_queue WHERE status = 'dead_letter'")
    assert dead == [{"error_code": "xd2s"}]


@pytest.mark.story("empty")
async def test_without_a_dead_letter_a_synthetic_event_proves_the_workers(told: Told) -> None:
    """Scenario B: a marked event goes through the deployed workers, and its row is taken away again."""
    assert (told.exit_status, told.json["outcome"]) == (0, "succeeded"), told.stderr
    [canary] = await rows(told, "SELECT sentence FROM runbook.phase_record WHERE phase = 'canary'")
    assert "synthetic" in canary["sentence"]
    marked = await rows(told, "SELECT FROM tds_inbox_events WHERE webhook_headers::text LIKE '%Synthetic%'")
    assert len(marked) == 2
    [row] = await rows(
        told, "SELECT zoho_deleted_at, is_active FROM products WHERE zoho_item_id = 'tds-runbook-synthetic'"
    )
    assert row["zoho_deleted_at"] is not None
    assert row["is_active"] is False


@pytest.mark.story("failed-only")
async def test_only_failed_events_hold_the_release_and_are_named(told: Told) -> None:
    """Scenario C: nothing is redriven, the sentence says what they are, and a person decides."""
    assert (told.exit_status, told.json["outcome"]) == (4, "held"), told.stderr
    assert "in status failed" in told.json["reason"]
    assert "52 Product" in told.json["reason"]
    assert told.json["events"]["failed"] == BACKLOG
    [release] = await rows(told, "SELECT resume_phase::text, finished_at FROM runbook.release")
    assert release == {"resume_phase": "canary", "finished_at": None}


@pytest.mark.story("failed-only")
async def test_a_held_release_keeps_others_out_and_a_person_can_take_it_back(
    told: Told, stories: Stories
) -> None:
    """A second release is refused while one is held; rolling the held one back by hand works without Prefect."""
    other = stories.run(
        "release", told.json["revisions"]["sick"], "-e", told.environment, "--yes", timeout=120
    )
    assert other.returncode == 5
    assert "is held" in other.stderr
    back = stories.run(
        "rollback", "-e", told.environment, "--reason", "nobody knows these events", "--without-prefect", "--json",
        timeout=180,
    )  # fmt: skip
    assert back.returncode == 2, back.stderr
    assert json.loads(back.stdout.strip().splitlines()[-1])["outcome"] == "rolled_back"
    await assert_back_on_broken_by_hand(told)


async def assert_back_on_broken_by_hand(told: Told) -> None:
    """The hosts answer with the former revision, whatever the story's own JSON said before."""
    broken = told.json["revisions"]["broken"]
    assert {answer["revision"] for answer in (await running(told)).values()} == {broken}
    assert trees(told) == {broken}
