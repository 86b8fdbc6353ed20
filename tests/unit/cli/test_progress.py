"""The progress as lines: each change once, and never a silent minute."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from flows.cli import follow
from flows.cli.progress import SILENT_SECONDS, Progress
from handlers.status.assemble import assemble
from tests.unit.status import snapshots
from tests.unit.status.snapshots import operation, view


def test_each_change_is_one_line_and_is_said_once() -> None:
    """The steps of the hosts too, with what is usual."""
    progress = Progress()
    first = progress.lines(view("deploying"))
    assert first[2:] == [
        "14:03:28 deploy running: changing the hosts, one first, then the others",
        "14:03:08 deploy: prepare of web-1, web-2 done: 6.1 s (usual 6.0 s)",
        "14:03:11 deploy: stop of web-1, web-2 done: 2.6 s (usual 2.5 s)",
        "14:03:18 deploy: switch of web-1 done: 7.4 s (usual 7.0 s)",
        "14:03:22 deploy: probe of web-1 done: 4.1 s (usual 4.0 s): 2 of 2 good answers in a row",
        "14:03:23 deploy: switch of web-2 running: usually 7.0 s",
    ]
    assert progress.lines(view("deploying")) == []
    assert progress.lines(view("restarting")) == [
        "14:03:29 deploy: switch of web-2 done: 6.9 s (usual 7.0 s)",
        "14:03:29 deploy: probe of web-2 running: usually 4.0 s: 0 of 2 good answers in a row: no answer: "
        "connection refused",
    ]


def test_while_nothing_changes_it_says_what_is_waited_for_and_since_when() -> None:
    """At least every twenty seconds; a reader who sees nothing cannot tell a wait from a hang."""
    progress, begun = Progress(), snapshots.deploying()
    progress.lines(assemble(begun))
    said = []
    for second in range(1, 65):
        said += progress.lines(assemble(replace(begun, at=begun.at + timedelta(seconds=second))))
    assert said == [
        f"14:{3 + (28 + seconds) // 60:02}:{(28 + seconds) % 60:02} waits for switch of web-2, since 14:03:23: "
        f"{took} (usual 7.0 s)"
        for seconds, took in ((20, "25 s"), (40, "45 s"), (60, "1 min 5 s"))
    ]


def test_the_end_of_a_phase_is_said_with_its_duration() -> None:
    """Beside the usual one; how long people took to approve is not compared."""
    said = Progress().lines(view("watching"))
    assert "14:03:40 deploy done after 38 s (usual 38 s): 2 of 2 hosts are on 9f3c2e1" in said
    assert "14:03:00 plan done: 7be1c04d2a55: 12 checks passed, 58 dead letters to drain" in said


def test_a_rehearsal_tells_its_two_times_apart_at_once() -> None:
    """Before the first time is printed."""
    assert Progress().lines(view("rehearsed"))[0].startswith("rehearsal at 60 x: the watch ")
    assert not any("rehearsal" in line for line in Progress().lines(view("watching")))


def test_a_fleet_is_counted() -> None:
    """Twenty hosts are one line for each step, not twenty."""
    begun = snapshots.deploying()
    fleet = tuple(operation(f"web-{number}", "prepare", 62, 3 + number / 10) for number in range(1, 21))
    said = Progress().lines(assemble(replace(begun, operations=fleet)))
    assert [line for line in said if "prepare" in line] == [
        "14:03:07 deploy: prepare of 20 hosts done: 5.0 s (usual 6.0 s)"
    ]


def test_a_database_that_is_away_is_said_and_said_again() -> None:
    """At once, and after a while; after its return the view goes on."""
    progress = Progress()
    said = [line for second in range(50) for line in progress.away(second)]
    assert len(said) == 3
    assert all(
        re.match(r"the database has not answered for \d+ s; the release goes on", line) for line in said
    )
    progress.lines(view("deploying"))
    assert len(progress.away(1.0)) == 1
    assert SILENT_SECONDS <= 60


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_view_that_cannot_be_read_keeps_what_was_known_and_says_so(is_terminal: bool) -> None:
    """On a terminal and in a pipe: silence would look like a release that hangs."""
    out = Console(file=io.StringIO(), width=80, height=40, force_terminal=is_terminal, soft_wrap=True)
    screen = follow._Screen(out)
    with screen:
        screen.show(view("deploying"))
        screen.show_away()
    assert isinstance(out.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())
    _, _, later = shown.partition("the database has not answered for 0 s; the release goes on by itself")
    assert ("Waits    switch of web-2" in later) == is_terminal
    assert "switch of web-2" in shown


def test_text_from_a_host_moves_no_cursor() -> None:
    """An output with control characters is one plain line."""
    begun = snapshots.deploying()
    bad = operation("web-2", "activate", 83, 2, outcome="failed", last_line="a\x1b[2Jb\nc")
    said = Progress().lines(assemble(replace(begun, operations=(*begun.operations[:-1], bad))))
    assert not any(ord(character) < 32 for line in said for character in line)
    assert any(
        line.endswith("switch of web-2 failed: 2.0 s (usual 7.0 s): failed: a [2Jb c") for line in said
    )
