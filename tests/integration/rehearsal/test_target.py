"""The rehearsal's target: it comes up like a real place, with the source runbook's backlog."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from rehearsal import erp
from rehearsal.environment import write_environment
from rehearsal.hosts.host import WEB_UNIT, WORKERS_UNIT
from rehearsal.pace import Pace
from rehearsal.story import Story
from rehearsal.target import Target
from rehearsal.webhooks.backlog import DAY_EVENTS
from tests.integration.rehearsal.target_steps import answers, git, health, rows


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """One target for the tests that only look, or mend what they break."""
    async with Target.create("good", folder=tmp_path_factory.mktemp("place")) as target:
        yield target


async def test_environment_file_describes_the_target(place: Target) -> None:
    """The file loads like any other environment file, and everything it names is there."""
    environment = load_environment(str(place.environment_path))
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
    assert others == [("completed", 342 + DAY_EVENTS)]


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


async def test_the_port_of_a_host_stays_its_own(place: Target) -> None:
    """While the web process is down nobody else gets its port, and it comes up again where it was."""
    host = place.hosts[1]
    assert host.systemctl("stop", WEB_UNIT).returncode == 0
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("127.0.0.1", host.http_port))
    assert host.systemctl("start", WEB_UNIT).returncode == 0
    assert (await answers(host, place.revisions["broken"]))[0] == 200


def test_revisions_have_the_same_ids_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the clock, nor the machine, nor the user's git settings reach a commit's id."""
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    first, second = (erp.write_origin(tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert list(first) == list(erp.HISTORY)
    assert len(set(first.values())) == len(erp.HISTORY)


def test_every_story_has_its_revision_and_its_queue() -> None:
    """A story is a revision to release and a queue to begin with."""
    assert {story.value: (story.revision_name, story.variant) for story in Story} == {
        "good": ("fixed", "good"),
        "sick": ("sick", "good"),
        "treacherous": ("treacherous", "good"),
        "slow": ("slow", "good"),
        "empty": ("fixed", "empty"),
        "failed-only": ("fixed", "failed-only"),
        "blip": ("fixed", "good"),
        "stall": ("stall", "good"),
        "one-type": ("one_type", "good"),
        "hopeless": ("fixed", "hopeless"),
        "late": ("late", "good"),
        "known": ("known", "good"),
    }


def test_every_story_ends_as_its_revision_deserves() -> None:
    """A story with a faulty revision is rolled back, and no other one."""
    assert {story for story in Story if story.exit_code == 2} == {
        story for story in Story if not story.is_good
    }
    assert {story.revision_name for story in Story} <= set(erp.HISTORY)


async def test_a_slow_machine_is_waited_for(tmp_path: Path) -> None:
    """How long the ERP took to start tells how slow it is. What the gate waits for stays the same."""
    async with Target.create("empty", folder=tmp_path, hosts=1) as target:
        assert target.start_seconds > 0

        def settings(start_seconds: float) -> Environment:
            path = tmp_path / "again.toml"
            place = {"database_port": target.server.port, "hosts": target.hosts, "pace": target.pace}
            secrets = target.environment_path.parent / "secrets"
            write_environment(path, secrets=secrets, start_seconds=start_seconds, **place)
            return load_environment(str(path))

        usual, slow = settings(0.5), settings(6.0)
    assert (usual.probe.limit_seconds, slow.probe.limit_seconds) == (21, 120)
    assert (usual.probe.answer_seconds, slow.probe.answer_seconds) == (3, 24)
    assert (usual.ssh.connect_seconds, slow.ssh.connect_seconds) == (5, 24)
    assert (usual.deploy.keep_trying_seconds, slow.deploy.keep_trying_seconds) == (60, 240)
    assert usual.watch.late_seconds == slow.watch.late_seconds == 2


async def test_the_waits_of_workers_and_watch_follow_the_speed(tmp_path: Path) -> None:
    """Two minutes are two seconds at a speed of 60, and no wait is shorter than a machine needs."""
    async with Target.create("empty", folder=tmp_path, hosts=1, speed=20) as target:
        environment = load_environment(str(target.environment_path))
        unit = (target.hosts[0].folder / "units" / f"{WORKERS_UNIT}.service").read_text()
    assert environment.watch.late_seconds == 3
    assert "ERP_BACKOFF_SECONDS=6.0 " in unit.replace("\n", " ")
    assert "ERP_WAIT_SECONDS=30.0 " in unit.replace("\n", " ")
    assert Pace(speed=60).backoff_seconds == 2
    fastest = Pace(speed=600)
    assert (fastest.late_seconds, fastest.backoff_seconds, fastest.wait_seconds) == (2, 1, 10)
    assert fastest.backoff_cap_seconds >= fastest.backoff_seconds
    real = Pace(speed=1)
    assert (real.late_seconds, real.backoff_seconds, real.backoff_cap_seconds, real.wait_seconds) == (
        60, 120, 3600, 600,
    )  # fmt: skip
