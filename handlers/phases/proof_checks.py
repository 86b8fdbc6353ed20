"""Whether a release could be proven at all: what every host's health endpoint answers now, with the present revision.

A wrong address or field name would take a good release, and its rollback, for failed ones. So it is refused before the
start. A present revision that is only unhealthy is a warning: the release may be the cure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from handlers.environment.model import Environment, Host, Probe
from handlers.host.answer import MISSING, Answer, paths, value_at
from handlers.host.facts import HostFacts
from handlers.host.health import is_good_database, worker_revisions
from handlers.release.phase import runs, short
from handlers.release.planned import Check

KEYS_SHOWN = 12
"""The names of an answer's keys in a sentence."""
_NAME_MAX = 40
_BAD = re.compile(
    r"down|err|fail|unhealthy|unavail|disconn|degrad|critical|timeout|refused|false|none|no\b|off\b", re.I
)
"""A state of the database that says itself that it is bad."""
_PLAIN = re.compile(r"^[\w .:+-]{1,40}$")
"""A value that may be printed: a field that is misnamed could lead to a secret."""


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """Something in an answer that the probe would not accept."""

    sentence: str
    refuses: bool
    """Whether a release could not be proven. Otherwise the new revision may answer well."""


def proof_checks(
    environment: Environment, host: Host, facts: HostFacts, answer: Answer, *, deploys: bool
) -> list[Check]:
    """The checks of one host's answer; empty when the probe would accept it.

    Without *deploys* nothing is restarted, so that the present revision itself must be healthy.
    """
    checks = []
    for finding in _findings(environment, host, facts, answer):
        warns = deploys and not finding.refuses
        sentence = f"{host.name}: {finding.sentence}"
        checks.append(Check(name=host.name, good=warns, sentence=sentence, warns=warns))
    return checks


def _findings(environment: Environment, host: Host, facts: HostFacts, answer: Answer) -> Iterator[_Finding]:
    if answer.problem:
        yield _no_answer(environment, host, facts, answer)
        return
    yield from _revision_findings(environment, host, facts, answer)
    yield from _database_findings(environment.probe, host, answer)
    yield from _worker_findings(environment, host, facts, answer)
    if faults := _unhealthy(environment.probe, answer):
        current = short(facts.revision)
        sentence = f"{', '.join(faults)}: it is unhealthy on {current}, so going back to {current} could not be proven"
        yield _Finding(refuses=False, sentence=sentence)


def _no_answer(environment: Environment, host: Host, facts: HostFacts, answer: Answer) -> _Finding:
    seen = f"{', '.join(answer.faults)} ({_shown(host.health_url)})"
    if is_down(environment, facts):
        sentence = (
            f"{seen}, because {_units(environment, facts)} is not active: a release starts it, and only then "
        )
        return _Finding(refuses=False, sentence=f"{sentence}its answer can be checked")
    units = _units(environment, facts)
    return _Finding(
        refuses=True,
        sentence=f"{seen}, although {units} is active: no release could be proven. Check hosts.health_url and the "
        f"controller's way to it, or restart {units}; one that cannot answer may be stopped, a release starts it",
    )


def is_down(environment: Environment, facts: HostFacts) -> bool:
    """Whether no web unit of the host is active."""
    states = [unit.active_state for unit in facts.units if unit.name in environment.services.web]
    return bool(states) and "active" not in states


def _revision_findings(
    environment: Environment, host: Host, facts: HostFacts, answer: Answer
) -> Iterator[_Finding]:
    field, current, units = environment.probe.revision_field, facts.revision, _units(environment, facts)
    reported = value_at(answer.content, field)
    if reported is MISSING:
        sentence = _missing(
            host, answer, "probe.revision_field", field, lambda value: runs(value, current or "-")
        )
        yield _Finding(refuses=True, sentence=sentence)
    elif not re.fullmatch(r"[0-9a-fA-F]{7,40}", str(reported)):
        sentence = f"{field!r} in its health answer is {_plain(reported)}, no commit id of 7 digits or more"
        yield _Finding(
            refuses=True, sentence=f"{sentence}: no release could be proven (probe.revision_field)"
        )
    elif current and not runs(reported, current):
        sentence = f"it runs {short(str(reported))}, but its tree is on {short(current)}: restart {units}"
        yield _Finding(
            refuses=True, sentence=f"{sentence} first; else it is unknown whether {short(current)} works"
        )


def _database_findings(probe: Probe, host: Host, answer: Answer) -> Iterator[_Finding]:
    field = probe.database_field
    if field is None:
        return
    state = value_at(answer.content, field)
    if state is MISSING:
        sentence = _missing(
            host, answer, "probe.database_field", field, lambda value: is_good_database(value, probe)
        )
        # An answer about a failure may be shorter than a healthy one.
        yield _Finding(refuses=answer.is_success, sentence=sentence)
    elif answer.is_success and not is_good_database(state, probe) and not _BAD.search(str(state)):
        sentence = f"database {_plain(state)} is none of probe.database_good, although it answers HTTP {answer.status}"
        sentence += ": add it there if it means healthy, or correct probe.database_field"
        yield _Finding(refuses=True, sentence=sentence)


def _unhealthy(probe: Probe, answer: Answer) -> list[str]:
    """What the present revision says about itself that the next one may cure."""
    faults = [] if answer.is_success else [f"HTTP {answer.status}"]
    state = MISSING if probe.database_field is None else value_at(answer.content, probe.database_field)
    if state is not MISSING and not is_good_database(state, probe):
        bad = not answer.is_success or _BAD.search(str(state))
        faults += [f"database {_plain(state)}"] if bad else []
    return faults


def _plain(value: object) -> str:
    return str(value) if _PLAIN.match(str(value)) else "(a value that is not printed)"


def _worker_findings(
    environment: Environment, host: Host, facts: HostFacts, answer: Answer
) -> Iterator[_Finding]:
    field = environment.probe.worker_revisions_field
    if field is None:
        return
    current = facts.revision
    revisions = worker_revisions(answer.content, field)
    if revisions is None:
        sentence = _missing(
            host, answer, "probe.worker_revisions_field", field, _is_list_of_revisions, what="no list"
        )
        yield _Finding(refuses=answer.is_success, sentence=sentence)
    elif not revisions and _is_active(facts, environment.services.workers):
        sentence = (
            "no live worker in its health answer: a release starts the workers, and must see them there"
        )
        yield _Finding(refuses=False, sentence=sentence)
    elif others := sorted({short(str(found)) for found in revisions if current and not runs(found, current)}):
        units = " and ".join(environment.services.workers) or "them"
        sentence = f"workers run {', '.join(others)}, but the tree is on {short(current)}: restart {units}, and stop "
        yield _Finding(refuses=True, sentence=f"{sentence}those elsewhere; else no release could be proven")


def _is_active(facts: HostFacts, names: tuple[str, ...]) -> bool:
    """Whether one of the units is active, or there are none of their own."""
    states = [unit.active for unit in facts.units if unit.name in names]
    return not states or any(states)


def _missing(
    host: Host, answer: Answer, key: str, field: str, fits: Callable[[object], bool], *, what: str = "no"
) -> str:
    """A field that is not in the answer: the names of those that are, and the one that was probably meant."""
    known = [(_name(path), value) for path, value in paths(answer.content)]
    names = sorted(dict.fromkeys(path for path, _ in known))
    meant = [path for path, value in known if fits(value)]
    near = difflib.get_close_matches(field, meant or names, n=1, cutoff=0.5) or meant[:1]
    hint = f"; did you mean {near[0]!r}?" if near and near[0] != field else ""
    rest = f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    listed = (
        f"its keys are {', '.join(names[:KEYS_SHOWN])}{rest}" if names else "it is no JSON object with keys"
    )
    status = "" if answer.is_success else f" (HTTP {answer.status} at {_shown(host.health_url)})"
    return f"{what} {field!r} in its health answer{status} ({key}){hint}: {listed}"


def _name(path: str) -> str:
    """A path of an answer, printable and not too long."""
    text = "".join(character if character.isprintable() else "?" for character in path)
    return text if len(text) <= _NAME_MAX else f"{text[: _NAME_MAX - 3]}..."


def _is_list_of_revisions(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _units(environment: Environment, facts: HostFacts) -> str:
    return " and ".join(environment.services.web) or f"the application on {facts.host}"


def _shown(address: str) -> str:
    """A health address without what may be secret in it."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return "hosts.health_url"
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.host}{port}{url.path}"
