"""A verification is good only when every bar is kept and everything could be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from handlers.errors import ExitCode
from handlers.measurements.measurement import Measurement, compared, no_data, source_down
from handlers.release.phase import Phase, Release
from handlers.report.verdict import Answer, HostState, next_steps, verify

GOOD = [
    compared("success_24h", 99.0, 95, "%", "990 of 1,000 completed, 99.0 %", good_above=True),
    compared("oldest", 0, 300, "s", "no event is due"),
]
HOSTS = [HostState(name="web-1", revision="a" * 40), HostState(name="web-2", revision="a" * 40)]
BROKEN = compared("dead_letters_24h", 2, 0, "", "2 events became dead letters")
DOWN = source_down("load", "no answer", subject="web-1")


def test_kept_bars_and_healthy_hosts_are_good() -> None:
    """Then nothing is to be done."""
    found = verify("shop", GOOD, HOSTS)
    assert (found.answer, found.exit_code, found.next) == (Answer.GOOD, ExitCode.GOOD, ())
    assert found.sentence.startswith("2 bars are kept, none is broken; 990 of 1,000")


@pytest.mark.parametrize(
    ("checks", "hosts", "answer", "says"),
    [
        ([*GOOD, BROKEN], HOSTS, Answer.NOT_GOOD, "dead_letters_24h: 2 events became dead letters"),
        ([*GOOD, DOWN], HOSTS, Answer.NOT_DECIDABLE, "load web-1: it could not be read: no answer"),
        # What is broken is known, whatever else is not.
        ([*GOOD, BROKEN, DOWN], HOSTS, Answer.NOT_GOOD, "1 more could not be decided"),
        ([no_data("success_24h", "0 events ended"), GOOD[1]], HOSTS, Answer.NOT_DECIDABLE, "0 events ended"),
        ([], HOSTS, Answer.NOT_DECIDABLE, "success_24h was not measured"),
        (GOOD, [replace(HOSTS[0], problem="HTTP 503"), HOSTS[1]], Answer.NOT_GOOD, "host web-1: HTTP 503"),
        (
            GOOD,
            [HOSTS[0], replace(HOSTS[1], revision="b" * 40)],
            Answer.NOT_GOOD,
            "the hosts run 2 revisions",
        ),
        (
            GOOD,
            [HOSTS[0], HostState(name="web-2", revision=None, problem="no answer", answered=False)],
            Answer.NOT_DECIDABLE,
            "host web-2: no answer",
        ),
    ],
)
def test_what_is_broken_or_unknown_is_never_good(
    checks: list[Measurement], hosts: list[HostState], answer: Answer, says: str
) -> None:
    """It is named, the exit code is 4."""
    found = verify("shop", checks, hosts)
    assert (found.answer, found.exit_code) == (answer, ExitCode.HELD)
    assert says in found.sentence


def test_a_check_without_data_alone_does_not_undecide() -> None:
    """A quiet hour is no fault, while the day tells enough."""
    assert verify("shop", [*GOOD, no_data("success_1h", "0 events")], HOSTS).answer is Answer.GOOD


def test_many_faults_are_counted_and_not_all_listed() -> None:
    """The report has them all below."""
    many = [compared("freshness", 2, 1, "s", f"old {n}", subject=f"table{n}") for n in range(9)]
    assert verify("shop", [*GOOD, *many], HOSTS).sentence.endswith("; and 6 more.")


@pytest.mark.parametrize(
    ("check", "command"),
    [
        (BROKEN, "runbook drain -e shop"),
        (compared("silent_workers", 1, 0, "", "1 fell silent"), "runbook doctor -e shop"),
        (compared("load", 9, 1, "", "9", subject="web-1"), "runbook check -e shop"),
        (compared("connections", 99, 90, "%", "99 %"), "runbook doctor -e shop"),
        (compared("new_signatures", 1, 0, "", "one"), "runbook logs -e shop"),
        (DOWN, "runbook check -e shop"),
    ],
)
def test_each_fault_says_what_to_type(check: Measurement, command: str) -> None:
    """A verdict without a next step helps nobody at night."""
    assert any(step.startswith(command) for step in verify("shop", [*GOOD, check], HOSTS).next)


def release(phase: Phase) -> Release:
    """A release in *phase*."""
    return Release(
        id="2026-11-29.1",
        environment="shop",
        from_revision="a" * 40,
        to_revision="b" * 40,
        requested_by="ops-a",
        phase=phase,
        resume_phase=None,
        token=1,
        speed=1,
        reason="",
        created_at=datetime(2026, 11, 29, tzinfo=UTC),
        finished_at=None,
    )


@pytest.mark.parametrize(
    ("phase", "about", "first"),
    [
        (Phase.SUCCEEDED, {}, None),
        (Phase.SUCCEEDED, {"left": 3}, "runbook drain -e shop – 3 of the planned"),
        (Phase.ROLLED_BACK, {}, "runbook explain -e shop 2026-11-29.1"),
        (Phase.ROLLBACK_FAILED, {"need": "a person looks at the hosts"}, "a person looks at the hosts"),
        (Phase.HELD, {"need": "a person decides: `runbook resume`"}, "a person decides"),
    ],
)
def test_the_end_of_a_release_says_what_to_type(
    phase: Phase, about: dict[str, object], first: str | None
) -> None:
    """What waits for a person is first."""
    nothing = {"need": "", "left": 0, "left_behind": "", "quarantined": False}
    steps = next_steps(release(phase), **(nothing | about), verification=verify("shop", GOOD, HOSTS))  # type: ignore[arg-type]
    assert steps[0].startswith(first) if first else not steps


def test_a_quarantined_revision_and_letters_left_behind_are_named_after_a_rollback() -> None:
    """Both would be forgotten."""
    steps = next_steps(
        release(Phase.ROLLED_BACK),
        need="",
        left=0,
        left_behind="runbook drain -e shop --left-by 2026-11-29.1",
        quarantined=True,
        verification=verify("shop", GOOD, HOSTS),
    )
    assert [step.partition(" –")[0] for step in steps] == [
        "runbook explain -e shop 2026-11-29.1",
        "runbook drain -e shop --left-by 2026-11-29.1",
        "runbook unblock -e shop bbbbbbb --by NAME",
    ]


@pytest.mark.parametrize(
    ("phase", "offered"),
    [
        (Phase.ROLLED_BACK, True),
        (Phase.ROLLBACK_FAILED, True),
        (Phase.SUCCEEDED, False),
        (Phase.HELD, False),
    ],
)
def test_a_sync_is_offered_after_a_rollback(phase: Phase, offered: bool) -> None:
    """The fallback: the tables are brought up to date without webhooks, where the source can be read."""
    for can_sync in (True, False):
        steps = next_steps(
            release(phase),
            need="",
            left=0,
            left_behind="",
            quarantined=False,
            verification=verify("shop", GOOD, HOSTS),
            can_sync=can_sync,
        )
        line = "runbook sync incremental -e shop – to bring the tables up to date from Zoho"
        assert (line in steps) == (offered and can_sync)
