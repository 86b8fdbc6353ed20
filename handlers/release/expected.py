"""What a release will do and how long that takes, by its settings: the sentences of a plan. Pure."""

from __future__ import annotations

from handlers.environment.model import Environment
from handlers.release.phase import Phase, short
from handlers.release.planned import EVERYTHING


def steps(
    environment: Environment, scope: tuple[Phase, ...], events: int, to_revision: str
) -> tuple[str, ...]:
    """The release as a list of sentences, for people."""
    hosts = ", ".join(host.name for host in environment.hosts)
    target = short(to_revision)
    sentences = {
        Phase.DEPLOYING: f"deploy {target} to {hosts}: stop the workers everywhere, change one host first, then "
        "the others",
        Phase.PROBING: f"probe: {environment.probe.consecutive} good answers in a row with {target} from each host",
        Phase.CANARY: "canary: send one dead letter to the deployed workers and follow it until it settles"
        if events
        else "canary: no dead letter can be drained, so a synthetic event goes to the deployed workers",
        Phase.DRAINING: f"drain: redrive the other dead letters ({max(0, events - 1)}), one of each type first, "
        "then growing batches; what fails again is set aside"
        if events > 1
        else "drain: there is no other dead letter",
        Phase.WATCHING: f"watch: measure live traffic for {environment.watch.window_seconds / 60:g} min, every "
        f"{environment.watch.interval_seconds:g} s",
    }
    return tuple(sentences[phase] for phase in EVERYTHING if phase in scope)


def expected_seconds(environment: Environment, scope: tuple[Phase, ...], events: int) -> float:
    """The estimated duration: the waits of each phase, and 20 s for each host.

    Batches double, so their number grows with the logarithm of the number of events.
    """
    deploy = 20.0 * len(environment.hosts)
    probe = environment.probe.consecutive * environment.probe.interval_seconds
    batches = 2 + events.bit_length()
    parts = {
        Phase.DEPLOYING: deploy,
        Phase.PROBING: probe,
        Phase.CANARY: 5.0,
        Phase.DRAINING: 5.0 * batches if events else 0.0,
        Phase.WATCHING: environment.watch.window_seconds,
    }
    return sum(seconds for phase, seconds in parts.items() if phase in scope)
