"""Why a host is not ready for a release, from the facts of its inspection."""

from __future__ import annotations

import pytest

from handlers.environment.load import parse
from handlers.host.facts import HostFacts
from handlers.phases.plan import CLOCK_SKEW_MAX_SECONDS, host_faults

ENVIRONMENT = parse(
    {
        "name": "staging",
        "database": {"url": "postgresql://u@localhost/erp"},
        "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
        "hosts": [{"name": "web-1", "address": "127.0.0.1", "health_url": "http://127.0.0.1:1/"}],
        "deploy": {"directory": "/srv/erp"},
        "services": {"web": ["tsh-erp"]},
    },
    source="test",
)


def facts(*, clock_skew_seconds: float = 0.0) -> HostFacts:
    """A host without faults, but for its clock."""
    return HostFacts(
        host="web-1",
        revision="a" * 40,
        problem="",
        dirt="",
        switching_to=None,
        remote_url="origin",
        free_bytes=10**9,
        clock_skew_seconds=clock_skew_seconds,
        units=(),
        state=None,
        present=None,
    )


@pytest.mark.parametrize(("skew", "words"), [(40.0, "40 s ahead of ours"), (-40.0, "40 s behind ours")])
def test_a_wrong_clock_is_ahead_or_behind(skew: float, words: str) -> None:
    """The direction is a word, not a sign."""
    assert host_faults(ENVIRONMENT, facts(clock_skew_seconds=skew)) == [
        f"its clock is {words}: fix its time service (see `timedatectl`)"
    ]


@pytest.mark.parametrize("skew", [0.0, CLOCK_SKEW_MAX_SECONDS, -CLOCK_SKEW_MAX_SECONDS])
def test_a_small_clock_skew_is_no_fault(skew: float) -> None:
    """The limit itself is allowed, in both directions."""
    assert host_faults(ENVIRONMENT, facts(clock_skew_seconds=skew)) == []
