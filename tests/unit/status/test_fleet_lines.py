"""A fleet on few lines: hosts in one state together, named as long as there are few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handlers.release.phase import Phase, Release
from handlers.status.fleet_lines import progress, together
from handlers.status.lines import lines
from handlers.status.view import HostStepView, HostView, ReturnView, StatusView

NOW = datetime(2026, 11, 28, 14, 5, tzinfo=UTC)


def step(host: int, step: str, outcome: str | None = "done") -> HostStepView:
    return HostStepView(
        name=f"web-{host}", step=step, outcome=outcome, started_at=NOW - timedelta(seconds=2)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], ""),
        ([step(1, "prepare", None), step(2, "prepare")], "web-1 preparing; web-2 prepared"),
        (
            [
                step(1, "start-workers"),
                step(2, "activate", None),
                step(10, "stop-workers"),
                step(3, "activate", None),
            ],
            "web-1 workers started; web-2, web-3 switching; web-10 workers stopped",
        ),
        (
            [step(1, "activate"), *(step(n, "stop-workers") for n in range(2, 21))],
            "web-1 switched; 19 hosts: workers stopped",
        ),
        ([step(1, "activate", "failed")], "web-1 switching: failed"),
        ([step(1, "activate", "unreachable")], "web-1 switching: unreachable"),
        ([step(1, "polish")], "web-1 polish done"),
    ],
)
def test_the_progress_of_each_host_is_said(steps: list[HostStepView], text: str) -> None:
    """Running, done, or failed; up to three hosts by their names, more by their number."""
    assert progress(steps) == text


def test_hosts_are_in_the_order_of_their_numbers() -> None:
    """web-2 comes before web-10."""
    names = ["web-10", "db-1", "web-2"]
    assert together((name, "ok") for name in names) == "db-1, web-2, web-10 ok"


def twenty(phase: Phase) -> StatusView:
    """A release to twenty hosts."""
    release = Release(
        id="2026-11-28.1", environment="production", from_revision="a" * 40, to_revision="b" * 40,
        requested_by="ops-a", phase=phase, resume_phase=None, token=1, speed=1, reason="", created_at=NOW,
        finished_at=None,
    )  # fmt: skip
    hosts = [
        HostView(name=f"web-{n}", want="b" * 40, have="ab"[n < 15] * 40, good=n < 15, note="", seen_at=NOW)
        for n in range(1, 21)
    ]
    steps = [step(n, "activate", None if n > 5 else "done") for n in range(1, 21)]
    return StatusView(
        environment="production", at=NOW, release=release, hosts=tuple(hosts), host_steps=tuple(steps)
    )


def facts(view: StatusView) -> Iterator[str]:
    for line in lines(view, 80):
        assert len(line) <= 80
        yield line


def test_twenty_hosts_fit_a_few_lines() -> None:
    """Neither the versions nor the progress of a fleet pushes the rest out of 80 columns and 24 lines."""
    text = list(facts(twenty(Phase.DEPLOYING)))
    assert len(text) < 10
    assert "Hosts    5 hosts: switched; 15 hosts: switching" in text
    assert "Version  want bbbbbbb   14 hosts: bbbbbbb ok; 6 hosts: aaaaaaa NOT OK" in text


def test_hosts_that_are_back_are_counted_and_the_others_shown() -> None:
    """On the way back of a fleet, each host that is not back keeps its own line."""
    returns = [
        ReturnView(
            name=f"web-{n}", back=n != 7, revision="a" * 40, units="", operation="", tries=2, sentence="no login",
            seen_at=NOW,
        )
        for n in range(1, 21)
    ]  # fmt: skip
    text = list(facts(replace(twenty(Phase.ROLLING_BACK), returns=tuple(returns))))
    assert "Back     19 hosts: on aaaaaaa" in text
    assert [line for line in text if line.startswith("web-")] == [
        "web-7    NOT BACK after 2 tries, on aaaaaaa: no login"
    ]
