"""What is to be said of each host: wrong is only what waiting does not mend, not a restart under way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from handlers.release.ledger.releases import PhaseRecord
from handlers.release.note import HostNote
from handlers.release.phase import FINISHED, Phase, Release, runs
from handlers.release.planned import Plan
from handlers.status.steps import BACK
from handlers.status.view import HostState, HostStep, HostTree, HostView, StepState


def hosts_of(
    release: Release, records: Sequence[PhaseRecord], plan: Plan, tree: Iterable[HostTree]
) -> tuple[HostView, ...]:
    """The newest note about each host, before the first one its state in the plan; and what is to be said of it.

    *tree* has the steps of the running phase on each host.
    """
    want = release.from_revision if release.phase in BACK else release.to_revision
    notes = {host.name: HostNote(have=host.current) for host in plan.hosts}
    for record in records:
        notes |= record.note.hosts or {}
    steps = {host.host: {step.step: step for step in host.steps} for host in tree}
    changes_hosts = _changes_hosts(release, records)
    return tuple(
        HostView(
            name=name,
            want=want,
            have=note.have,
            good=note.ok,
            note=note.note,
            seen_at=note.seen_at,
            state=_state(release.phase, note, want, steps.get(name, {})) if changes_hosts else _settled(note),
        )
        for name, note in sorted(notes.items())
    )


def _changes_hosts(release: Release, records: Sequence[PhaseRecord]) -> bool:
    """Whether hosts are changed or proven now, so that a host has the time to become good."""
    is_about_hosts = release.phase in (Phase.DEPLOYING, Phase.PROBING, Phase.ROLLING_BACK)
    return is_about_hosts and release.phase not in FINISHED and records[-1].finished_at is None


def _settled(note: HostNote) -> HostState:
    return {True: HostState.OK, False: HostState.NOT_OK, None: HostState.NOT_PROBED}[note.ok]


def _state(phase: Phase, note: HostNote, want: str, steps: Mapping[str, HostStep]) -> HostState:
    if any(step.state is StepState.FAILED for step in steps.values()):
        return HostState.NOT_OK
    if phase is Phase.ROLLING_BACK:
        return _back(note, want, steps)
    if phase is Phase.DEPLOYING and not _is_done(steps, "switch"):
        return HostState.SWITCHING if _begun(steps, "switch") else HostState.UNCHANGED
    probe = steps.get("probe")
    if probe is None or note.seen_at is None or (probe.started_at and note.seen_at < probe.started_at):
        return HostState.RESTARTING if phase is Phase.DEPLOYING else _settled(note)
    if note.ok:
        return HostState.OK
    return _coming(note, want)


def _coming(note: HostNote, want: str) -> HostState:
    """A host whose newest answer was not good, within the time that the probe gives it."""
    if note.unit_failed:
        return HostState.NOT_OK
    return HostState.NOT_READY if runs(note.have, want) else HostState.RESTARTING


def _back(note: HostNote, want: str, steps: Mapping[str, HostStep]) -> HostState:
    if note.ok and runs(note.have, want) and _is_done(steps, "probe"):
        return HostState.OK
    if _is_done(steps, "switch"):
        return HostState.RESTARTING
    return HostState.SWITCHING if _begun(steps, "switch") else HostState.GOING_BACK


def _is_done(steps: Mapping[str, HostStep], name: str) -> bool:
    return name in steps and steps[name].state is StepState.DONE


def _begun(steps: Mapping[str, HostStep], name: str) -> bool:
    return name in steps and steps[name].started_at is not None
