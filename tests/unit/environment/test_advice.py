"""A command that we print works as it is printed: it names the environment as this process was given it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from flows.cli.output import _environment
from handlers.environment import load
from handlers.environment.advice import addressed
from handlers.environment.load import env_option, load_environment

MINIMAL = """
name = "by-path"
database.url = "postgresql://runbook@127.0.0.1:1/none"
ssh = {user = "deploy", key_file = "~/.ssh/key", known_hosts_file = "/etc/known_hosts"}
hosts = [{name = "web-1", address = "web-1.example.com", health_url = "http://web-1.example.com/health"}]
deploy.directory = "/srv/erp"
services.web = ["tsh-erp"]
"""


def test_a_name_stays_a_name() -> None:
    assert env_option("production") == "-e production"


def test_a_path_becomes_absolute_and_is_quoted_for_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "x.toml"
    relative = os.path.relpath(path)
    assert shlex.split(env_option(relative)) == ["-e", str(path)]


def test_an_environment_that_was_loaded_by_its_path_is_named_by_it(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    try:
        assert env_option(load_environment(str(path)).name) == f"-e {path}"
    finally:
        load._BY_NAME.pop("by-path", None)


def test_each_command_gets_the_environment_behind_its_arguments() -> None:
    text = "run `runbook rollback`, or `runbook queue show 12`; see `runbook`"
    assert addressed(text, "staging") == (
        "run `runbook rollback -e staging`, or `runbook queue show 12 -e staging`; see `runbook`"
    )


@pytest.mark.parametrize(
    "text",
    [
        "`runbook resume --due -e other`",
        "`runbook resume --environment other`",
        "`runbook up`",
        "`runbook resume --help`",
        "runbook rollback, without backticks",
        "`systemctl restart x`",
    ],
)
def test_what_is_complete_or_no_command_of_ours_stays(text: str) -> None:
    assert addressed(text, "staging") == text


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["status", "-e", "here.toml"], "here.toml"),
        (["status", "-ehere"], "here"),
        (["status", "--environment", "here"], "here"),
        (["status", "--environment=here"], "here"),
        (["status"], None),
        (["status", "-e"], None),
        (["history", "--end", "x"], None),
    ],
)
def test_the_environment_of_a_command_line_is_found(arguments: list[str], environment: str | None) -> None:
    assert _environment(arguments) == environment
