"""A password in an environment file that others can read is told, and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.environment import load
from handlers.environment.exposed import exposed_password
from handlers.environment.model import Environment

TEXT = """
name = "exposed"
database.url = "postgresql://runbook:{password}127.0.0.1:1/none"
ssh = {{user = "deploy", key_file = "~/.ssh/key", known_hosts_file = "/etc/known_hosts"}}
hosts = [{{name = "web-1", address = "web-1.example.com", health_url = "http://web-1.example.com/health"}}]
deploy.directory = "/srv/erp"
services.web = ["tsh-erp"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "exposed.toml"
    load._BY_NAME.pop("exposed", None)


def loaded(path: Path, password: str, mode: int) -> Environment:
    text = TEXT.format(password=f"{password}@" if password else "@")
    path.write_text(text.replace("runbook:@", "runbook@"), encoding="utf-8")
    path.chmod(mode)
    return load.load_environment(str(path))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_password_that_others_can_read_is_told(place: Path, mode: int) -> None:
    sentence = exposed_password(loaded(place, "s3cret-word", mode))
    assert sentence.startswith(
        f"database.url in {place} has a password, and others can read the file (mode {mode:o})"
    )
    assert "s3cret-word" not in sentence


def test_a_file_of_its_owner_is_fine(place: Path) -> None:
    assert exposed_password(loaded(place, "s3cret-word", 0o600)) == ""


def test_an_address_without_a_password_is_fine(place: Path) -> None:
    assert exposed_password(loaded(place, "", 0o644)) == ""


def test_a_file_that_is_gone_meanwhile_is_no_error(place: Path) -> None:
    environment = loaded(place, "s3cret-word", 0o644)
    place.unlink()
    assert exposed_password(environment) == ""
