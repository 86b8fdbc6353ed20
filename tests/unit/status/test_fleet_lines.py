"""A fleet on few lines: hosts in one state together, named as long as there are few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from handlers.release.phase import Phase, Release
from handlers.status.fleet_lines import together
from handlers.status.lines import lines
from handlers.status.view import (
    HostState,
    HostStep,
    HostTree,
    HostView,
    ReturnView,
    StatusView,
    StepState,
    StepView,
)

NOW = datetime(2026, 11, 28, 14, 5, tzinfo=UTC)


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
        HostView(
            name=f"web-{n}", want="b" * 40, have="ab"[n < 15] * 40, good=n < 15, note="", seen_at=NOW,
            state=HostState.OK if n < 15 else HostState.NOT_OK,
        )
        for n in range(1, 21)
    ]  # fmt: skip
    trees = [HostTree(host=f"web-{n}", steps=steps(is_switched=n <= 5, seconds=n)) for n in range(1, 21)]
    step = StepView(
        name="deploy", state=StepState.RUNNING, at=NOW, sentence="", phase=Phase.DEPLOYING, hosts=tuple(trees)
    )
    return StatusView(environment="production", at=NOW, release=release, hosts=tuple(hosts), steps=(step,))


def steps(*, is_switched: bool, seconds: float) -> tuple[HostStep, ...]:
    """A host that is switched, or being switched for so many seconds."""
    stop = HostStep(step="stop", state=StepState.DONE, seconds=seconds, usual_seconds=4.0)
    began = NOW - timedelta(seconds=seconds)
    if is_switched:
        return (stop, HostStep(step="switch", state=StepState.DONE, started_at=began, seconds=seconds))
    return (stop, HostStep(step="switch", state=StepState.RUNNING, started_at=began, seconds=seconds))


def facts(view: StatusView) -> Iterator[str]:
    for line in lines(view, 80):
        assert len(line) <= 80
        yield line


def test_twenty_hosts_fit_a_few_lines() -> None:
    """Neither the versions nor the progress of a fleet pushes the rest out of 80 columns and 24 lines."""
    text = list(facts(twenty(Phase.DEPLOYING)))
    assert len(text) < 10
    assert "   5 hosts  [done]    switch   5.0 s" in text
    assert "   15 hosts [running] switch   20 s, since 14:04:40" in text
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
