"""The board's endpoints on a real database: the numbers are those of the commands, and what is away is never 0."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from board.metrics.names import METRICS, PREFIX
from board.place import Place, open_places
from handlers.core import open_core
from handlers.database import clock
from handlers.environment.load import load_environment
from handlers.measurements import everything, queue_view
from handlers.queue import look, processing_times
from handlers.queue.event import Status
from handlers.status import snapshot
from tests.integration.board.world import SENTINEL, TOKEN, World, board_of, serving, world

PATHS = ("queue", "success-rate", "releases", "alerts")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Two environments for all tests; the last one takes their server away."""
    async with world(tmp_path_factory.mktemp("board")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def places(here: World) -> AsyncIterator[dict[str, Place]]:
    """The environments, which have looked at the queue since five minutes ago."""
    async with open_places(here.files) as places:
        for place in places.values():
            place._histogram.until = await clock.now(here.engine) - timedelta(minutes=5)
        yield places


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(places: dict[str, Place]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the board of both."""
    async with serving(places) as client:
        yield client


def samples(content: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples of a scrape by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def value_of(content: str, name: str, **labels: str) -> float:
    """One sample of a scrape."""
    return samples(content)[f"{PREFIX}{name}", frozenset(labels.items())]


async def json_of(client: httpx.AsyncClient, path: str) -> Any:
    """A good answer."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_metric_is_exported_and_no_other(client: httpx.AsyncClient) -> None:
    """Dashboards and alert rules are checked against this list, so it must be the truth."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert families == {metric.full_name for metric in METRICS}


async def test_the_numbers_are_those_of_the_commands(client: httpx.AsyncClient, here: World) -> None:
    """Queue, checks and status have the same values from the same functions, as JSON and as metrics."""
    queue = await json_of(client, "/e/production/queue")
    scraped = (await client.get("/metrics")).text
    async with here.engine.connect() as tx:
        counts = await look.counts(tx)
        environment = load_environment(here.files[0])
        view = await queue_view.read(tx, environment, None, has_ledger=True)
    assert queue["status"] == {str(status): events for status, events in counts.items()}
    for status in Status:
        assert value_of(scraped, "queue_events", environment="production", status=status) == counts[status]
    assert queue["dead_letters"] == [
        {"entity": "Product", "error_code": "xd2s", "error": "no rate for item <n>", "count": 3}
    ]
    assert queue["limits"][0]["set_by"] == "ops-a"
    measured = {check.name: check for check in view.measurements}
    shown = {check["name"]: check for check in queue["checks"]}
    assert shown.keys() == measured.keys()
    for name in ("success_1h", "success_24h", "dead_letters_24h", "queue_depth", "stuck", "webhook_seconds"):
        assert shown[name]["value"] == pytest.approx(measured[name].value)
        assert shown[name]["state"] == measured[name].state
    success = value_of(scraped, "success_ratio", environment="production", window="1h")
    assert 100 * success == pytest.approx(measured["success_1h"].value)
    status = await snapshot.read(here.engine, "staging")
    current = (await json_of(client, "/e/staging/releases"))["current"]
    assert status.release is not None
    assert current["release"]["id"] == status.release.id
    assert [step["state"] for step in current["steps"]] == [step.state for step in status.steps]
    assert value_of(scraped, "release_phase", environment="staging", phase=status.release.phase) == 1
    assert value_of(scraped, "release_phase", environment="production", phase="succeeded") == 1


async def test_the_parts_of_the_queue_add_up(client: httpx.AsyncClient) -> None:
    """By type is by status, without the completed ones."""
    queue = await json_of(client, "/e/staging/queue")
    by_status: dict[str, int] = {}
    for row in queue["by_type"]:
        by_status[row["status"]] = by_status.get(row["status"], 0) + row["events"]
    assert by_status == {
        name: events for name, events in queue["status"].items() if events and name != "completed"
    }


async def test_success_is_told_by_type_and_over_time(client: httpx.AsyncClient) -> None:
    """The checks, each type with its share, and the points of a picture."""
    answer = await json_of(client, "/e/production/success-rate")
    types = {row["entity"]: row for row in answer["types"]}
    assert (types["Invoice"]["completed"], types["Invoice"]["percent"]) == (25, 100.0)
    assert len(answer["course"]) == 48
    assert sum(point["ended"] for point in answer["course"]) == 28
    assert answer["times"][-1]["entity"] == ""
    assert answer["unread"] == {}


async def test_processing_times_are_a_histogram(client: httpx.AsyncClient) -> None:
    """Cumulative buckets by type, whose last one is the count. Four seconds lie between 2.5 and 5."""
    content = (await client.get("/metrics")).text
    labels = {"environment": "production", "entity": "Invoice"}
    assert value_of(content, "processing_seconds_bucket", **labels, le="2.5") == 0
    assert value_of(content, "processing_seconds_bucket", **labels, le="5.0") == 25
    assert value_of(content, "processing_seconds_bucket", **labels, le="+Inf") == 25
    assert value_of(content, "processing_seconds_count", **labels) == 25
    assert value_of(content, "processing_seconds_sum", **labels) == pytest.approx(100)


async def test_an_event_is_counted_once_however_often_somebody_looks(here: World) -> None:
    """Each look goes on where the one before ended, and an event that has just completed waits for the next."""
    histogram = processing_times.Histogram()
    async with here.engine.connect() as tx:
        at = await clock.now(tx)
        first = await processing_times.read_since(tx, None)
        assert first.times == {}
        histogram.add(await processing_times.read_since(tx, at - timedelta(minutes=5)))
        histogram.add(await processing_times.read_since(tx, histogram.until))
        overtaken = await processing_times.read_since(tx, at - timedelta(minutes=5))
    before = dict(histogram.times)
    histogram.add(processing_times.Added(until=at - timedelta(minutes=4), times=overtaken.times))
    assert histogram.times == before
    assert before["Invoice"].events == 25
    assert set(before) == {"Invoice"}


async def test_alerts_say_since_when_and_what_to_type(client: httpx.AsyncClient, here: World) -> None:
    """A broken check, a sync that nobody carries, and what people were told of: the ledger knows since when."""
    production = {
        f"{alert['name']} {alert['subject']}": alert
        for alert in (await json_of(client, "/e/production/alerts"))["alerts"]
    }
    broken = production["check-broken dead_letters_24h"]
    assert broken["since_is_of"] == "board"
    # The file was given by its path, so the command has it.
    assert broken["next"][0].startswith(f"runbook queue show -e {here.files[0]} – ")
    assert production["sync-stopped full"]["next"][0].startswith(f"runbook sync full -e {here.files[0]} – ")
    staging = (await json_of(client, "/e/staging/alerts"))["alerts"]
    [around] = [alert for alert in staging if alert["name"] == "around"]
    assert around["sentence"] == "upstream.away: it answers with 503"
    assert around["since_is_of"] == "ledger"
    assert all(alert["next"] and alert["since"] for alert in staging)
    content = (await client.get("/metrics")).text
    assert value_of(content, "alerts", environment="staging", alert="around", severity="warning") == 1
    assert value_of(content, "alerts", environment="staging", alert="release-held", severity="page") == 0


@pytest.mark.parametrize("path", [*(f"/e/staging/{path}" for path in PATHS), "/metrics", "/health"])
async def test_no_answer_has_a_secret_or_a_value_of_a_payload(client: httpx.AsyncClient, path: str) -> None:
    """A secret in a sentence is masked, and nothing of a payload is read at all."""
    answer = await client.get(path)
    assert answer.status_code == 200
    assert SENTINEL not in answer.text
    assert "item now" not in answer.text


async def test_labels_are_few(client: httpx.AsyncClient) -> None:
    """No id of an event, no text of an error, and one series for the revision."""
    content = (await client.get("/metrics")).text
    found = samples(content)
    assert len(found) < 2 * 400
    assert "no rate" not in content
    info = [labels for name, labels in found if name == f"{PREFIX}release_info"]
    assert len(info) == 2


async def test_several_environments_need_a_name(client: httpx.AsyncClient) -> None:
    """The short path would be ambiguous; an unknown name says which there are."""
    assert (await json_of(client, "/environments"))["environments"] == ["production", "staging"]
    assert (await client.get("/queue")).status_code == 404
    answer = await client.get("/e/nowhere/queue")
    assert answer.status_code == 404
    assert answer.json()["error"] == (
        "there is no environment 'nowhere' here: this board serves production, staging"
    )


async def test_one_environment_has_the_short_paths(here: World) -> None:
    """`/queue` is that of the only environment."""
    async with board_of(here.files[:1]) as client:
        for path in PATHS:
            assert await json_of(client, f"/{path}") == await json_of(client, f"/e/production/{path}")
        assert (await client.get("/queue?environment=nowhere")).status_code == 404


async def test_many_who_ask_at_once_are_one_reading(here: World) -> None:
    """A scrape, a person and a program read the database once."""
    async with board_of(here.files[:1]) as client:
        answers = await asyncio.gather(*(json_of(client, "/releases") for _ in range(20)))
        assert len({answer["at"] for answer in answers}) == 1


async def test_the_board_cannot_write(places: dict[str, Place]) -> None:
    """Its sessions are read-only for the server, whatever the code does."""
    core = await places["staging"].core()
    with pytest.raises(Exception, match="read-only transaction"):
        async with core.database.begin() as tx:
            await tx.execute(text("DELETE FROM runbook.message"))


async def test_the_description_of_the_answers_needs_no_other_site(client: httpx.AsyncClient) -> None:
    """OpenAPI as JSON, with the sentence of each field, and no page that loads scripts."""
    described = await json_of(client, "/openapi.json")
    fields = described["components"]["schemas"]["Alert"]["properties"]
    assert fields["since_is_of"]["description"].startswith("`ledger`: since then.")
    assert (await client.get("/docs")).status_code == 404


async def test_what_row_security_hides_is_not_an_empty_queue(here: World) -> None:
    """The server does not refuse, it shows nothing: the board says that it cannot read, and has no numbers."""
    async with here.engine.begin() as tx:
        for statement in (
            "CREATE ROLE looker LOGIN PASSWORD 'looker-pass'",
            "GRANT USAGE ON SCHEMA public, runbook TO looker",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public, runbook TO looker",
            "ALTER TABLE tds_sync_queue ENABLE ROW LEVEL SECURITY",
        ):
            await tx.execute(text(statement))
    path = here.folder / "hidden.toml"
    lines = Path(here.files[1]).read_text(encoding="utf-8")
    password = lines.split("postgres:")[1].split("@")[0]
    path.write_text(
        lines.replace("staging", "hidden").replace(f"postgres:{password}", "looker:looker-pass"), "utf-8"
    )
    try:
        async with board_of([str(path)]) as client:
            answer = await client.get("/queue")
            assert answer.status_code == 503
            assert "row level security hides rows" in answer.json()["error"]
            content = (await client.get("/metrics")).text
            assert value_of(content, "up", environment="hidden") == 1
            assert value_of(content, "scrape_error", environment="hidden") == 1
            assert value_of(content, "source_up", environment="hidden", source="queue") == 0
            assert not [name for name, _ in samples(content) if name.startswith(f"{PREFIX}queue_")]
            assert (await json_of(client, "/health"))["environments"][0]["unread"] == [
                "queue",
                "times",
                "workers",
            ]
            names = [alert["name"] for alert in (await json_of(client, "/alerts"))["alerts"]]
            assert "source-down" in names
    finally:
        async with here.engine.begin() as tx:
            await tx.execute(text("ALTER TABLE tds_sync_queue DISABLE ROW LEVEL SECURITY"))
            await tx.execute(text("DROP OWNED BY looker"))
            await tx.execute(text("DROP ROLE looker"))


async def test_a_token_is_needed_for_everything_but_the_health(here: World) -> None:
    """Without it: 401, and /health says only whether it works. With it: everything."""
    async with board_of(here.files, TOKEN) as client:
        for path in ("/metrics", "/environments", "/openapi.json", *(f"/e/staging/{path}" for path in PATHS)):
            assert (await client.get(path)).status_code == 401, path
            wrong = await client.get(path, headers={"Authorization": f"Bearer {TOKEN[:-1]}"})
            assert wrong.status_code == 401, path
            good = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert good.status_code == 200, path
        assert await json_of(client, "/health") == {"status": "ok"}
        # With a token the name does not matter: a page of another site does not have it.
        named = await client.get("/health", headers={"Host": "board.example.com"})
        assert named.status_code == 200


async def test_without_a_token_only_names_of_this_machine_are_answered(client: httpx.AsyncClient) -> None:
    """DNS rebinding: a foreign name that leads here would let its page read everything."""
    for name, status in (
        ("evil.example.com", 421),
        ("evil.example.com:80", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8710", 200),
    ):
        answer = await client.get("/environments", headers={"Host": name})
        assert answer.status_code == status, name


async def test_every_answer_has_the_strict_headers(client: httpx.AsyncClient) -> None:
    """Also a refusal: nothing may be framed, loaded from elsewhere, guessed or kept."""
    for answer in (await client.get("/health"), await client.get("/e/x/queue"), await client.get("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_a_changed_file_holds_at_once(here: World) -> None:
    """Another bar in the file is in the next reading; a file that is broken leaves the last good one."""
    path = here.folder / "changing.toml"
    good = Path(here.files[1]).read_text(encoding="utf-8").replace("staging", "changing")
    path.write_text(good, encoding="utf-8")
    async with open_places([str(path)]) as places:
        place = places["changing"]
        engine = (await place.core()).database
        path.write_text(f"{good}\n[bars]\noldest_seconds = 7\n", encoding="utf-8")
        core = await place.core()
        assert core.environment.bars.oldest_seconds == 7
        assert core.database is not engine
        path.write_text("name = ", encoding="utf-8")
        assert (await place.core()).environment.bars.oldest_seconds == 7


async def test_checks_are_measured_as_everywhere(places: dict[str, Place], here: World) -> None:
    """The board measures with the function of the guard and of verify."""
    now = await places["production"].now()
    async with open_core(load_environment(here.files[0])) as core:
        measured = await everything.of_queue(core)
    assert now.checks is not None
    assert [(each.key, each.state) for each in now.checks] == [(each.key, each.state) for each in measured]


async def test_a_database_that_is_away_has_no_zeros(here: World) -> None:
    """`up` is 0 and every number is absent; the alert says what to type; when it is back, so are the numbers."""
    async with board_of(here.files) as client:
        assert value_of((await client.get("/metrics")).text, "up", environment="staging") == 1
        await asyncio.to_thread(here.server.stop)
        for name in ("production", "staging"):
            answer = await until(client, f"/e/{name}/health", 503)
            assert "database" in answer.json()["environments"][0]["reason"]
        assert (await client.get("/health")).status_code == 503
        content = (await client.get("/metrics")).text
        names = {name for name, _ in samples(content)}
        assert names == {
            f"{PREFIX}{name}" for name in ("board_info", "board_environments", "up", "scrape_error", "alerts")
        }
        assert value_of(content, "up", environment="staging") == 0
        assert value_of(content, "scrape_error", environment="staging") == 1
        alerts = {labels for name, labels in samples(content) if name == f"{PREFIX}alerts"}
        assert {dict(labels)["alert"] for labels in alerts} == {"database-away"}
        for path in PATHS[:-1]:
            answer = await client.get(f"/e/staging/{path}")
            assert answer.status_code == 503
            assert "database" in answer.json()["error"]
        [alert] = (await json_of(client, "/e/staging/alerts"))["alerts"]
        assert (alert["name"], alert["severity"]) == ("database-away", "page")
        assert f"runbook doctor -e {here.files[1]} – " in alert["next"][0]
        await asyncio.to_thread(here.server.restart)
        await until(client, "/health", 200)
        assert value_of((await client.get("/metrics")).text, "up", environment="staging") == 1


async def until(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Ask until the answer has this status: a reading is used for some seconds."""
    limit = time.monotonic() + 90
    while (answer := await client.get(path)).status_code != status:
        assert time.monotonic() < limit, answer.text
        await asyncio.sleep(0.2)
    return answer
