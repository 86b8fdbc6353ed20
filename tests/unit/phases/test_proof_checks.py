"""Whether a release could be proven: what each kind of health answer means before the start."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.environment.load import parse
from handlers.environment.model import Environment
from handlers.host.answer import Answer
from handlers.host.clock import OURS
from handlers.host.facts import HostFacts, UnitFacts
from handlers.phases.proof_checks import KEYS_SHOWN, proof_checks
from handlers.release.planned import Check

HEAD = "41aa07c" + "0" * 33
OTHER = "9f3c2e1" + "0" * 33
FIELDS = {
    "revision_field": "revision",
    "database_field": "database",
    "worker_revisions_field": "workers.revisions",
}
ONLY_REVISION = {"database_field": None, "worker_revisions_field": None}
GOOD = {"revision": HEAD, "database": "ok", "workers": {"revisions": [HEAD, HEAD[:7]]}}


def environment(**probe: str | None) -> Environment:
    """An environment whose probe reads these fields."""
    return parse(
        {
            "name": "staging",
            "database": {"url": "postgresql://u@localhost/erp"},
            "ssh": {"user": "x", "key_file": "/none", "known_hosts_file": "/none"},
            "hosts": [
                {
                    "name": "web-1",
                    "address": "127.0.0.1",
                    "health_url": "http://me:s3cret@web-1:8000/health?token=s3cret",
                }
            ],
            "deploy": {"directory": "/srv/erp"},
            "services": {"web": ["tsh-erp"], "workers": ["tsh-erp-workers"]},
            "probe": FIELDS | probe,
        },
        source="test",
    )


def facts(web: str = "active") -> HostFacts:
    """A host on HEAD with its web unit in a state."""
    return HostFacts(
        host="web-1",
        revision=HEAD,
        problem="",
        dirt="",
        switching_to=None,
        remote_url="origin",
        free_bytes=10**9,
        clock=OURS,
        units=(
            UnitFacts(name="tsh-erp", loaded=True, active_state=web, main_pid=1),
            UnitFacts(name="tsh-erp-workers", loaded=True, active_state="active", main_pid=2),
        ),
        state=None,
        present=None,
    )


def checks(
    content: Any, *, status: int = 200, web: str = "active", deploys: bool = True, **probe: str | None
) -> list[Check]:
    """The checks of an answer."""
    place = environment(**probe)
    answer = Answer(host="web-1", status=status, content=content)
    return proof_checks(place, place.hosts[0], facts(web), answer, deploys=deploys)


def no_answer(problem: str, *, web: str, deploys: bool = True) -> Check:
    """The one check where nothing can be read."""
    place = environment()
    [check] = proof_checks(
        place, place.hosts[0], facts(web), Answer(host="web-1", problem=problem), deploys=deploys
    )
    return check


@pytest.mark.parametrize("deploys", [True, False])
@pytest.mark.parametrize("database", ["ok", "OK", "Connected", True])
def test_a_good_answer_has_no_check(database: object, deploys: bool) -> None:
    """The probe would accept it, also for a drain by hand."""
    assert checks(GOOD | {"database": database}, deploys=deploys) == []


def test_a_revision_of_digits_may_be_a_number() -> None:
    """An abbreviated commit without a letter comes as a JSON number from some serializers."""
    place = environment(worker_revisions_field=None, database_field=None)
    number = Answer(host="web-1", status=200, content={"revision": 1234567})
    known = HostFacts(**{**facts().__dict__, "revision": "1234567" + "a" * 33})
    assert proof_checks(place, place.hosts[0], known, number, deploys=True) == []


@pytest.mark.parametrize(
    ("content", "probe", "words"),
    [
        # A typo in the file.
        (GOOD, {"revision_field": "revison"},
         "no 'revison' in its health answer (probe.revision_field); did you mean 'revision'?: its keys are database, "
         "revision, workers.revisions"),
        # Another name than the default: the key that holds the present revision is meant, however it is called.
        ({"status": "ok", "build": {"git": HEAD[:10], "at": "12:00"}}, ONLY_REVISION,
         "did you mean 'build.git'?: its keys are build.at, build.git, status"),
        (GOOD, {"database_field": "db"},
         "no 'db' in its health answer (probe.database_field); did you mean 'database'?"),
        (GOOD, {"worker_revisions_field": "workers.shas"},
         "no list 'workers.shas' in its health answer (probe.worker_revisions_field); "
         "did you mean 'workers.revisions'?"),
        (GOOD | {"workers": 2}, {}, "no list 'workers.revisions'"),
        ([], {}, "no 'revision' in its health answer (probe.revision_field): it is no JSON object with keys"),
        ("healthy", {}, "it is no JSON object with keys"),
        (GOOD | {"revision": None}, {}, "is None, no commit id"),
        (GOOD | {"revision": "unknown"}, {}, "is unknown, no commit id of 7 digits or more"),
        (GOOD | {"revision": HEAD[:6]}, {}, "no commit id of 7 digits or more"),
        # HTTP 200, so the application takes itself for healthy.
        (GOOD | {"database": "postgresql 15"}, {},
         "database postgresql 15 is none of probe.database_good, although it answers HTTP 200"),
        # What runs is not the tree.
        (GOOD | {"revision": OTHER}, {}, "it runs 9f3c2e1, but its tree is on 41aa07c: restart tsh-erp first"),
        (GOOD | {"workers": {"revisions": [HEAD, OTHER]}}, {},
         "workers run 9f3c2e1, but the tree is on 41aa07c: restart tsh-erp-workers"),
    ],
)  # fmt: skip
def test_what_could_not_be_proven_is_refused(content: Any, probe: dict[str, str | None], words: str) -> None:
    """One wrong name, or another revision than the tree's, would take a good release to a failed rollback."""
    found = checks(content, **probe)
    assert any(words in check.sentence for check in found if not check.good), found


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"database": "down"}, 503, "HTTP 503, database down: it is unhealthy on 41aa07c"),
        ({"database": "down"}, 200, "database down: it is unhealthy on 41aa07c"),
        ({"database": False}, 200, "database False"),
        ({}, 500, "HTTP 500: it is unhealthy"),
        ({"workers": {"revisions": []}}, 200, "no live worker"),
    ],
)
def test_a_sick_present_revision_is_a_warning(change: dict[str, Any], status: int, words: str) -> None:
    """The release may be the cure. A drain or a watch by hand changes nothing, so there it is refused."""
    [check] = checks(GOOD | change, status=status)
    assert (check.good, check.warns) == (True, True)
    assert words in check.sentence
    assert not any(by_hand.good for by_hand in checks(GOOD | change, status=status, deploys=False))


def test_an_answer_about_a_failure_may_be_shorter() -> None:
    """Only the revision must be in it: the other fields may come back with the database."""
    found = checks({"revision": HEAD, "reason": "no database"}, status=503)
    assert found
    assert all(check.good and check.warns for check in found)
    assert not all(check.good for check in checks({"reason": "no database"}, status=503))


@pytest.mark.parametrize("web", ["inactive", "failed", "activating"])
def test_a_host_that_is_down_is_a_warning(web: str) -> None:
    """A release starts it. By hand nothing would."""
    check = no_answer("nothing listens at its health address", web=web)
    assert (check.good, check.warns) == (True, True)
    assert "tsh-erp is not active: a release starts it" in check.sentence
    assert not no_answer("nothing listens at its health address", web=web, deploys=False).good


@pytest.mark.parametrize("problem", ["nothing listens at its health address", "no answer within 5 s"])
def test_no_answer_from_an_active_unit_is_refused(problem: str) -> None:
    """Mostly the address is wrong; the sentence shows it without user, password and query."""
    check = no_answer(problem, web="active")
    assert not check.good
    assert f"web-1: {problem} (http://web-1:8000/health), although tsh-erp is active" in check.sentence
    assert "s3cret" not in check.sentence


def test_a_page_that_is_not_there_names_its_address() -> None:
    """FastAPI answers a wrong path in JSON: the status and the address tell it from a missing field."""
    found = checks({"detail": "Not Found"}, status=404, database_field=None, worker_revisions_field=None)
    assert "no 'revision' in its health answer (HTTP 404 at http://web-1:8000/health)" in found[0].sentence
    assert not found[0].good


def test_keys_are_listed_without_values_and_in_bounds() -> None:
    """An answer may hold secrets, and hundreds of keys."""
    content = {f"metric_{number:03}": "s3cret" for number in range(300)} | {"x" * 500: {"y\n": 1}}
    sentence = checks(content, database_field=None, worker_revisions_field=None)[0].sentence
    assert "s3cret" not in sentence
    assert "\n" not in sentence
    assert len(sentence) < 100 + KEYS_SHOWN * 42
    assert f"and {301 - KEYS_SHOWN} more" in sentence


def test_a_value_that_may_be_secret_is_not_printed() -> None:
    """A field that is misnamed could lead to an address with a password."""
    sentences = [
        c.sentence
        for c in checks(GOOD | {"database": "postgresql://erp:s3cret@db/erp", "revision": "a b/c@s3cret"})
    ]
    assert len(sentences) == 2
    assert not any("s3cret" in sentence for sentence in sentences)
