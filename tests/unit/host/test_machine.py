"""The readings of hosts and database, and their bars: what cannot be read is never taken for good."""

from __future__ import annotations

import pytest

from handlers.database.connections import DatabaseConnections
from handlers.environment.around import Machine
from handlers.host.machine import HostLoad, breaches, missing, parse, shown

GOOD = """\x01load
0.50 0.40 0.30 2/345 6789
\x01cpus
4
\x01memory
8000000
6000000
\x01disk
30000 10000
"""
BARS = Machine(load_per_cpu=2, memory_available_percent=10, disk_free_percent=10, connections_percent=90)


def host(**readings: float | int | None) -> HostLoad:
    """A host that is well, with other readings."""
    values: dict[str, float | int | None] = {
        "load1": 0.5,
        "cpus": 4,
        "memory_available_percent": 75,
        "disk_free_percent": 25,
    }
    return HostLoad(host="web-1", **(values | readings))  # type: ignore[arg-type]


def used(count: int, maximum: int = 100) -> DatabaseConnections:
    """A database with so many connections."""
    return DatabaseConnections(by_state={"active": 1, "idle": count - 1}, maximum=maximum)


def test_the_readings_of_a_host_are_read() -> None:
    """Load by CPU, and the shares of memory and disk that are left."""
    assert parse("web-1", GOOD) == host()
    assert parse("web-1", GOOD).load_per_cpu == 0.125
    assert HostLoad.from_json(host().as_json() | {"of_a_later_version": 1}) == host()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x01load\n\x01cpus\n\x01memory\n\x01disk\n",
        "\x01load\nsh: cat: not found\n\x01cpus\n0\n\x01memory\n8000000\n\x01disk\n0 0\n",
        "\x01load\n-\n\x01cpus\nunknown\n\x01memory\n0\n0\n\x01disk\n- -\n",
    ],
)
def test_what_cannot_be_read_is_unknown_and_down_where_it_has_a_bar(text: str) -> None:
    """A host without /proc, or with output that is no number: no reading is made up, and none counts as good."""
    found = parse("web-1", text)
    assert found == HostLoad(host="web-1")
    assert breaches(BARS, [found]) == []
    assert [sentence.partition(":")[0] for sentence in missing(BARS, [found])] == [
        "web-1 load",
        "web-1 memory",
        "web-1 disk",
    ]
    assert missing(Machine(), [found]) == []
    assert shown([found], None) == "web-1 load unknown, memory unknown, disk unknown"


@pytest.mark.parametrize(
    ("readings", "sentence"),
    [
        ({"load1": 8.4}, "web-1 load: 2.1 for each of 4 CPUs; the bar is 2"),
        ({"memory_available_percent": 9.9}, "web-1 memory: 9.9 % are available; the bar is 10 %"),
        ({"disk_free_percent": 0}, "web-1 disk: 0 % are free; the bar is 10 %"),
    ],
)
def test_a_broken_bar_has_its_sentence(readings: dict[str, float], sentence: str) -> None:
    """It names host and reading, the number and the bar, in at most 25 words."""
    assert breaches(BARS, [host(), host(**readings)]) == [sentence]
    assert len(sentence.split()) <= 25
    assert breaches(Machine(), [host(**readings)]) == []


def test_a_bar_that_is_just_reached_is_not_broken() -> None:
    """Equal is not beyond."""
    at_the_bar = host(load1=8, memory_available_percent=10, disk_free_percent=10)
    assert breaches(BARS, [at_the_bar], used(90)) == []
    assert breaches(BARS, [at_the_bar], used(91)) == [
        "database connections: 91 of 100 are used (91 %); the bar is 90 %"
    ]


def test_of_many_hosts_the_worst_are_shown() -> None:
    """A line names each of a few hosts, and of a fleet the one that is worst in each reading."""
    few = shown([host()], used(12))
    assert few == (
        "web-1 load 0.1 per CPU, memory 75 % available, disk 25 % free; "
        "database 12 of 100 connections (1 active, 11 idle)"
    )
    fleet = [
        HostLoad(host=f"web-{number}", load1=number, cpus=1, memory_available_percent=100 - number)
        for number in range(1, 6)
    ]
    assert shown(fleet, None) == "worst of 5 hosts: web-5 load 5.0 per CPU, web-5 memory 95 % available"
    assert shown([], None) == ""
