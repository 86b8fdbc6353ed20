"""The keys of an environment file about what is around a release: the upstream, and how full the machines are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from handlers.environment.section import Seconds, Section, is_a_web_address


def _are_answers(statuses: tuple[int, ...]) -> tuple[int, ...]:
    if refused := [status for status in statuses if status == 429 or not 200 <= status < 500]:
        raise ValueError(
            f"{refused[0]} cannot be expected: an answer is 200 to 499, and 429 says that it is busy"
        )
    return statuses


class Upstream(Section):
    """The API that the ERP mirrors, asked by us: while it is away nothing is judged, and the drain pauses."""

    url: Annotated[str, AfterValidator(is_a_web_address)]
    status: Annotated[
        tuple[int, ...],
        BeforeValidator(lambda v: (v,) if isinstance(v, int) else v),
        Field(min_length=1),
        AfterValidator(_are_answers),
    ] = (200,)
    """The statuses of a good answer. 401 is one where the address asks for a login that the probe does not have."""
    interval_seconds: Seconds = 30
    answer_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    failures: Annotated[int, Field(ge=1, le=10)] = 2
    """The failed answers in a row after which it counts as away. One good answer ends that."""
    pause_seconds_max: Seconds = 1800
    """How long a drain waits for it. Then the release is held."""


Percent = Annotated[float, Field(ge=0, le=100)]


class Machine(Section):
    """The bars for the readings of the hosts and of the database. A bar that is not set is not looked at."""

    load_per_cpu: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Broken above it: the load of the last minute by the number of CPUs."""
    memory_available_percent: Percent | None = None
    """Broken below it."""
    disk_free_percent: Percent | None = None
    """Broken below it: of the file system of deploy.directory."""
    connections_percent: Percent | None = None
    """Broken above it: of the connections that the database server allows."""
    action: Literal["show", "hold"] = "show"
    """Whether a broken bar is shown and paged only, or holds the release as well. See also Bars.roll_back."""
