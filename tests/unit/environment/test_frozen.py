"""The settings of a release: whole, without a secret, used to its end, and compared with the file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from handlers.database.jsonable import as_json
from handlers.environment.frozen import NOT_FROZEN, differences, settings, thaw
from handlers.environment.load import parse
from handlers.environment.model import Database, Environment
from handlers.errors import ConfigError
from tests.unit.environment.files import PASSWORD, environment, values


def stored(planned: Environment) -> dict[str, Any]:
    """The settings as the ledger gives them back."""
    back: dict[str, Any] = json.loads(as_json(settings(planned)))
    return back


def test_every_section_is_frozen_with_its_defaults() -> None:
    """Also a section that comes later: what is not frozen is named, and nothing else is left out."""
    frozen = stored(environment())
    assert frozen.keys() == set(Environment.model_fields) - NOT_FROZEN
    assert frozen["gate"]["good_percent"] == 95
    assert frozen["services"]["logs"][0] == "journalctl"


def test_a_release_gets_back_what_was_planned() -> None:
    """Through the ledger and back: all sections as planned; database and reports as in the file now."""
    planned = environment(
        gate={"good_percent": 90.5, "instant_errors": []}, probe={"database_good": ["on", True]}
    )
    now = environment(
        "web-9", database={"url": "postgresql://other@db/x"}, reports={"directory": "/srv/reports"}
    )
    frozen = thaw(stored(planned), now, release="1")
    assert frozen.model_copy(update={"database": planned.database, "reports": planned.reports}) == planned
    assert (frozen.database, frozen.reports) == (now.database, now.reports)


def test_no_secret_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the password of the database, nor one behind a reference, nor one written into a value."""
    monkeypatch.setenv("PASSPHRASE", PASSWORD)
    (tmp_path / "password").write_text(PASSWORD)
    file = values(
        database={"password": f"file:{tmp_path}/password"},
        ssh={"key_passphrase": "env:PASSPHRASE"},
        deploy={
            "before_activate": [
                f"curl https://ci:{PASSWORD}@files.example.com/settings -o settings",
                f"PGPASSWORD={PASSWORD} alembic upgrade head",
            ]
        },
    )
    file["hosts"][0]["health_url"] = f"http://monitor:{PASSWORD}@web-1.example.com/health"
    planned = parse(file, source="test")
    frozen = stored(planned)
    assert PASSWORD not in json.dumps(frozen)
    assert frozen["ssh"]["key_passphrase"] == "env:PASSPHRASE"
    # The file still has them, so the release still uses them.
    assert thaw(frozen, planned, release="1") == planned
    assert differences(frozen, planned) == []


def test_a_password_that_the_file_has_no_more_is_named() -> None:
    """A masked value is never used as it is. A changed password alone is taken from the file."""

    def hook(text: str) -> Environment:
        return environment(deploy={"before_activate": [text]})

    frozen = stored(hook("curl https://ci:one@a.example.com"))
    rotated = thaw(frozen, hook("curl https://ci:two@a.example.com"), release="1")
    assert rotated.deploy.before_activate == ("curl https://ci:two@a.example.com",)
    with pytest.raises(
        ConfigError, match=r"release 1, deploy, before_activate: .*was planned with a password"
    ):
        thaw(frozen, hook("curl https://ci:one@b.example.com"), release="1")


def test_a_reference_is_resolved_when_it_is_used(tmp_path: Path) -> None:
    """A rotated password file works; while it is away or empty, the value that was read before does."""
    secret = tmp_path / "passphrase"
    secret.write_text("one\n")
    planned = environment(ssh={"key_passphrase": f"file:{secret}"})
    frozen = thaw(stored(planned), planned, release="1")
    assert frozen.ssh.key_passphrase is not None
    seen = []
    for change in (lambda: secret.write_text("two\n"), secret.unlink, lambda: secret.write_text("")):
        change()
        seen.append(frozen.ssh.key_passphrase.get_secret_value())
    assert seen == ["two", "two", "two"]
    assert "two" not in repr(frozen)


def test_a_reference_that_cannot_be_resolved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done with the settings, and also when the file has another reference now."""
    monkeypatch.setenv("FORMER", "x")
    frozen = stored(environment(ssh={"key_passphrase": "env:FORMER"}))
    monkeypatch.delenv("FORMER")
    with pytest.raises(ConfigError, match=r"release 1: ssh\.key_passphrase: the variable FORMER is not set"):
        thaw(frozen, environment(), release="1")
    assert differences(frozen, environment()) == [
        "ssh.key_passphrase is not set now, this release keeps env:FORMER"
    ]


def test_a_path_means_the_same_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is the planner's; below ~ it is each user's own."""
    (tmp_path / "passphrase").write_text("x")
    monkeypatch.chdir(tmp_path)
    planned = environment(ssh={"known_hosts_file": "keys/known", "key_passphrase": "file:passphrase"})
    frozen = stored(planned)
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/other")
    ssh = thaw(frozen, environment(), release="1").ssh
    assert ssh.known_hosts_file == tmp_path / "keys" / "known"
    assert ssh.key_passphrase is not None
    assert ssh.key_passphrase.get_secret_value() == "x"
    assert frozen["ssh"]["key_file"] == "~/.ssh/key"
    assert ssh.key_file == Path("/home/other/.ssh/key")


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (environment("web-1"), "hosts: web-2 is not in the file now, this release keeps it"),
        (environment("web-1", "web-2", "web-3"),
         "hosts: web-3 is new in the file, this release does not have it"),
        (environment("web-2", "web-1"), "hosts: the order is web-2, web-1 now, this release keeps web-1, web-2"),
        (environment(gate={"good_percent": 90}), "gate.good_percent is 90 now, this release keeps 95"),
        (environment(canary={"poll_seconds": 0.25}), "canary.poll_seconds is 0.25 now, this release keeps 0.5"),
        (environment(probe={"database_field": "db"}),
         "probe.database_field is db now, this release keeps it unset"),
        (environment(services={"workers": ["erp-workers"]}),
         'services.workers is ["erp-workers"] now, this release keeps []'),
        (environment(canary={"compare_row": False}), "canary.compare_row is false now, this release keeps true"),
        (parse(values() | {"execution": "inline"}, source="test"),
         "execution is inline now, this release keeps workers"),
    ],
)  # fmt: skip
def test_each_difference_has_a_sentence(now: Environment, sentence: str) -> None:
    """What the file says now, and what the release keeps."""
    assert differences(stored(environment()), now) == [sentence]


def test_a_changed_host_is_named_with_its_key() -> None:
    """The host is found by its name, wherever it stands in the file."""
    file = values("web-2", "web-1")
    file["hosts"][1]["port"] = 2222
    assert differences(stored(environment()), parse(file, source="test")) == [
        "hosts.web-1.port is 2222 now, this release keeps 22",
        "hosts: the order is web-2, web-1 now, this release keeps web-1, web-2",
    ]


def test_what_is_not_frozen_is_no_difference() -> None:
    """Another database password or report folder is the file's business, and a default written out is none either."""
    now = environment(
        database={"url": "postgresql://runbook:new@127.0.0.1:1/none", "pool_size": 9},
        reports={"directory": "/srv/reports"},
        watch={"window_seconds": 1800},
    )
    assert differences(stored(environment()), now) == []


def test_settings_of_another_program_are_read() -> None:
    """A key of a newer program is ignored; one that an older program did not have has its default."""
    frozen = stored(environment(gate={"good_percent": 90}))
    other = copy.deepcopy(frozen)
    other["of_tomorrow"] = {"x": 1}
    other["gate"]["of_tomorrow"] = 1
    other["hosts"][1]["of_tomorrow"] = None
    del other["watch"]["late_seconds"]
    del other["canary"]
    now = environment(gate={"good_percent": 90})
    assert thaw(other, now, release="1") == thaw(frozen, now, release="1")
    assert differences(other, now) == []


def test_settings_that_became_invalid_are_named() -> None:
    """One sentence with the release and the key; it is no reason to judge anything."""
    frozen = stored(environment())
    frozen["watch"]["window_seconds"] = -1
    with pytest.raises(
        ConfigError, match=r"the settings of release 1: watch\.window_seconds: .*greater than 0"
    ):
        thaw(frozen, environment(), release="1")


def test_a_stored_name_or_database_is_not_used() -> None:
    """What is never frozen comes from the file, whatever the ledger says."""
    now = environment()
    frozen = stored(now) | {"database": {"url": "postgresql://evil@db/x"}, "name": "evil"}
    assert thaw(frozen, now, release="1") == now
    assert isinstance(thaw(frozen, now, release="1").database, Database)
