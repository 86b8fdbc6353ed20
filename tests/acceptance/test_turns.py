"""Stories whose fault shows in the live traffic: when it begins, what it spares, and what the world does meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fault_runs import rehearse
from tests.acceptance.story_runs import StoryRun
from tests.acceptance.test_stories import BACKLOG, DAMAGED_MAX, assert_back_on_broken, rows

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

RELEASED = "processing_result ->> 'revision' = (SELECT to_revision FROM runbook.release)"
WATCH = "(SELECT min(started_at) FROM runbook.phase_record WHERE phase = 'watching')"
MINUTES = f"extract(epoch FROM started_at - {WATCH}) * (SELECT speed FROM runbook.release) / 60"
"""How many minutes of the watch had passed when a worker took an event."""


def assert_consistent(run: StoryRun) -> None:
    """Hosts, ledger and queue agree."""
    assert run.json["inconsistencies"] == [], run.json


async def dead_live_events(run: StoryRun) -> list[dict[str, Any]]:
    """The live events that the released workers buried."""
    return await rows(
        run,
        f"""SELECT q.entity_type::text AS kind, q.error_code, {MINUTES} AS minute FROM tds_sync_queue q
            WHERE q.status = 'dead_letter' AND {RELEASED}
              AND NOT EXISTS (SELECT FROM runbook.release_event e WHERE e.event_id = q.id)""",
    )


@pytest.mark.story("hopeless")
async def test_letters_that_no_revision_can_read_stay_and_the_release_succeeds(run: StoryRun) -> None:
    """54 are drained. Four die of what they had died of, which is no news."""
    assert (run.exit_status, run.json["outcome"]) == (0, "succeeded"), run.stderr
    assert_consistent(run)
    assert run.json["events"]["dead_letter"] == 4
    letters = await rows(
        run,
        """SELECT q.error_message = s.error_message AS same, e.status FROM runbook.release_event e
           JOIN tds_sync_queue q ON q.id = e.event_id JOIN rehearsal.seeded s ON s.id = q.id
           WHERE q.status = 'dead_letter'""",
    )
    assert letters == [{"same": True, "status": "dead_letter"}] * 4
    drained = await rows(run, "SELECT FROM runbook.release_event WHERE status = 'completed'")
    assert len(drained) == BACKLOG - 4


@pytest.mark.story("known")
async def test_records_that_succeeded_once_and_then_always_die_are_seen(run: StoryRun) -> None:
    """An old success hides no new failure: of thirty records each completed once, and then none any more."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    assert_consistent(run)
    await assert_back_on_broken(run)
    dead = await dead_live_events(run)
    assert {each["error_code"] for each in dead} == {"AttributeError"}
    completed = await rows(
        run,
        f"""SELECT q.source_entity_id AS key FROM tds_sync_queue q WHERE q.status = 'completed' AND {RELEASED}
              AND NOT EXISTS (SELECT FROM runbook.release_event e WHERE e.event_id = q.id)""",
    )
    # Each once; two that are in one batch are applied together.
    assert 20 <= len({each["key"] for each in completed}) <= 30
    assert run.json["damaged"] == len(dead) > 0


@pytest.mark.story("blip")
async def test_a_blip_of_the_world_is_retried_and_forgiven(run: StoryRun) -> None:
    """Events met it, a retry cured each, and nothing is damaged."""
    assert (run.exit_status, run.json["outcome"]) == (0, "succeeded"), run.stderr
    assert_consistent(run)
    assert run.json["damaged"] == 0
    met = await rows(
        run,
        """SELECT status::text FROM tds_sync_queue
           WHERE processing_result -> 'attempts' @> '[{"code": "40001"}]'
              OR id IN (SELECT event_id FROM rehearsal.change WHERE after = 'retry')""",
    )
    assert met
    assert {each["status"] for each in met} == {"completed"}


@pytest.mark.story("stall")
async def test_workers_that_hang_after_the_canary_are_seen(run: StoryRun) -> None:
    """They were fine until minute 3 of the watch. What they held is given back, and applied after the rollback."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    assert_consistent(run)
    await assert_back_on_broken(run)
    assert run.json["events"]["dead_letter"] == 0
    assert run.json["events"].get("processing", 0) == 0
    assert 0 < run.json["damaged"] <= 12


@pytest.mark.story("one-type")
async def test_one_dead_type_among_good_ones_is_seen(run: StoryRun) -> None:
    """Every payment dies, nothing else does, and the drain, which has none, was healthy."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    assert_consistent(run)
    await assert_back_on_broken(run)
    dead = await dead_live_events(run)
    assert {(each["kind"], each["error_code"]) for each in dead} == {("PAYMENT", "KeyError")}
    assert run.json["damaged"] == len(dead)


@pytest.mark.story("late")
async def test_a_fault_that_begins_late_in_the_watch_is_seen(run: StoryRun) -> None:
    """Twenty good minutes do not outweigh a bad one."""
    assert (run.exit_status, run.json["outcome"]) == (2, "rolled_back"), run.stderr
    assert_consistent(run)
    await assert_back_on_broken(run)
    dead = await dead_live_events(run)
    assert {each["error_code"] for each in dead} == {"LookupError"}
    assert run.json["damaged"] == len(dead)
    assert run.json["events"]["dead_letter"] == len(dead)


@pytest.mark.story("hopeless")
async def test_webhooks_came_before_the_plan_at_the_switch_and_to_the_end(run: StoryRun) -> None:
    """Some were applied by the former revision, some waited while the workers were stopped, and the rest are new."""
    [counts] = await rows(
        run,
        """SELECT count(*) FILTER (WHERE q.created_at < r.created_at) AS before_plan,
               count(*) FILTER (WHERE NOT coalesce(q.processing_result ? 'outcome', false)) AS by_former,
               count(*) FILTER (WHERE q.created_at < start.at
                                  AND q.processing_result ->> 'revision' = r.to_revision) AS at_the_switch,
               count(*) FILTER (WHERE q.created_at > start.at) AS since, count(*) AS all
           FROM runbook.release r
           CROSS JOIN LATERAL (SELECT min(o.started_at) AS at FROM runbook.operation o
                               WHERE o.release_id = r.id AND o.kind = 'start-workers') start
           JOIN tds_sync_queue q ON NOT EXISTS (SELECT FROM rehearsal.seeded s WHERE s.id = q.id)
           GROUP BY r.id""",
    )
    assert counts["all"] == run.json["received"]
    assert counts["before_plan"] > 0
    assert counts["by_former"] > counts["before_plan"]
    assert counts["at_the_switch"] > 0
    assert counts["since"] > counts["all"] / 3


def test_in_real_time_few_webhooks_are_damaged_until_a_treacherous_release_is_left(
    short_folder: Path,
) -> None:
    """The gate lets probes through and holds the rest, also while hosts go back: dozens would have died at once."""
    ended = rehearse(short_folder, "treacherous", options=("--speed", "1"))
    assert ended.exit_status == 2, ended.shown
    ended.assert_consistent()
    assert ended.result["received"] > 100
    assert ended.result["damaged"] <= DAMAGED_MAX
