"""Which environments `--through` names: all files are read, and the order is checked, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.cli.release  # noqa: F401  It registers the command.
from flows.cli.app import app
from flows.cli.through import chain
from handlers.errors import ConfigError, Refused
from tests.integration.release.pair import PLACE


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of qa, staging and production; each later one needs the proof of the one before."""
    monkeypatch.setenv("RUNBOOK_ENVIRONMENTS", str(tmp_path))
    for name, more in (
        ("qa", ""),
        ("staging", '[promotion]\nenvironment = "qa"\n'),
        ("production", '[promotion]\nenvironment = "staging"\nmax_age_hours = 8\n'),
    ):
        text = PLACE.format(name=name, url="postgresql://x@127.0.0.1:1/x", port=1)
        (tmp_path / f"{name}.toml").write_text(text + more, encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("places")
def test_they_come_in_order_with_the_time_that_their_releases_count() -> None:
    """As the later ones say, else a day; after the last nobody asks."""
    found = [(place.name, place.max_age_hours) for place in chain("qa, staging,production")]
    assert found == [("qa", 24), ("staging", 8), ("production", None)]


def test_paths_and_names_may_be_mixed(places: Path) -> None:
    """As with --environment."""
    found = chain(f"{places}/staging.toml,production")
    assert [(place.given, place.name) for place in found] == [
        (f"{places}/staging.toml", "staging"),
        ("production", "production"),
    ]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("through", "error", "fault"),
    [
        ("production", Refused, "name at least two environments"),
        ("staging,", Refused, "name at least two environments"),
        ("staging,,production", Refused, "name at least two environments"),
        (" , ", Refused, "name at least two environments"),
        ("staging,staging", Refused, "staging is named twice"),
        ("production,staging", Refused, "production needs the proof of staging, so staging must come before it"),
        ("staging,production,qa", Refused, "staging needs the proof of qa, so qa must come before it"),
        ("staging,productoin", ConfigError, "there is no environment 'productoin'.* Did you mean production?"),
        ("staging;production", ConfigError, "there is no environment"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(through: str, error: type[Exception], fault: str) -> None:
    """Above all production before its staging."""
    with pytest.raises(error, match=fault):
        chain(through)


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--through", "staging,production", "-e", "staging"), "leave out --environment"),
        (("--through", "staging,production", "--plan", "7be1c0ffee00"), "leave out --plan"),
        (("--through", "staging,production", "--detach"), "leave out --detach"),
        (("--through", ""), "name the environment with --environment or RUNBOOK_ENVIRONMENT"),
        ((), "or several with --through"),
    ],
)
def test_options_that_contradict_it_are_refused(words: tuple[str, ...], fault: str) -> None:
    """Before anything is asked or started."""
    result = CliRunner().invoke(app, ["release", "4f2c9e1", "--yes", *words])
    assert isinstance(result.exception, Refused)
    assert fault in str(result.exception)


@pytest.mark.usefixtures("places")
def test_the_variable_of_the_environment_does_not_contradict_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a default, and --through is what was typed."""
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", "staging")
    result = CliRunner().invoke(app, ["release", "4f2c9e1", "--through", "staging,productoin"])
    assert "there is no environment 'productoin'" in str(result.exception)


FORGE = '\n[forge]\nrepository = "example-org/erp"\ntoken = "env:NOBODY_HAS_SET_THIS"\n'


def test_only_one_environment_of_a_chain_may_merge(places: Path) -> None:
    """The commit of the second would be made by the merge of the first. A token that is not set hinders no reading."""
    for name in ("staging", "production"):
        with (places / f"{name}.toml").open("a", encoding="utf-8") as file:
            file.write(FORGE)
        if name == "staging":
            assert len(chain("staging,production")) == 2
    with pytest.raises(Refused, match=r"staging and production both have \[forge\]"):
        chain("staging,production")
