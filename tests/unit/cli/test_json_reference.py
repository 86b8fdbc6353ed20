"""The JSON of the commands: documented from its models, versioned, and what is printed is what is documented."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.cli import json_objects, json_reference
from flows.cli.json_objects import History, Listed, Outcome, Started, keyed
from flows.cli.json_reference import OBJECTS, documented_keys
from flows.cli.output import failure, print_json
from flows.cli.schema_version import SCHEMA_VERSION
from handlers.database.jsonable import as_plain
from handlers.release.phase import Phase, Release
from handlers.release.planned import Plan
from handlers.status.view import HostStep, HostTree, HostView, StatusView, StepView, WaitView
from tests.unit.status import snapshots
from tests.unit.status.snapshots import MOMENTS, view

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "json.md"
PROMISED = Path(__file__).parent / f"json_fields_{SCHEMA_VERSION}.txt"


def test_the_page_says_what_the_models_say() -> None:
    """Write it anew with `python -m flows.cli.json_reference > docs/json.md`."""
    assert PAGE.read_text(encoding="utf-8") == json_reference.reference()


def test_a_version_keeps_what_it_has_promised() -> None:
    """A field that goes, or gets another type, needs a new SCHEMA_VERSION, and a file with that number.

    A new field is added to the file: `python -m tests.unit.cli.test_json_reference`.
    """
    promised = PROMISED.read_text(encoding="utf-8").splitlines()
    now = set(json_reference.field_lines())
    assert [line for line in promised if line not in now] == [], "raise SCHEMA_VERSION"
    assert sorted(now - set(promised)) == [], "new: add it to what is promised"


def test_the_page_states_the_version_and_when_it_changes() -> None:
    """A program must be able to rely on it."""
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"`schema_version`, now {SCHEMA_VERSION}. It grows when a field" in page
    assert "is removed or renamed, or gets another type, unit or meaning" in page


@pytest.mark.parametrize(
    "model", [StatusView, StepView, HostTree, HostStep, HostView, WaitView, Outcome, Started, History]
)
def test_each_field_of_the_status_and_the_outcome_has_a_meaning(model: type[Any]) -> None:
    """A name alone says neither the unit nor what null means."""
    meanings = json_reference._meanings(model)
    assert [name for name in documented_keys(model) - {"schema_version"} if not meanings.get(name)] == []


def undocumented(value: object, model_of: object, where: str = "") -> Iterator[str]:
    """The keys that JSON has and the models do not."""
    if is_dataclass(model_of):
        assert isinstance(value, dict)
        known = {json_objects.json_name(each.name): getattr(model_of, each.name) for each in fields(model_of)}
        yield from (f"{where}.{key}" for key in value.keys() - known.keys())
        for key in value.keys() & known.keys():
            yield from undocumented(value[key], known[key], f"{where}.{key}")
    elif isinstance(model_of, tuple | list):
        assert isinstance(value, list)
        for one, its_model in zip(value, model_of, strict=True):
            yield from undocumented(one, its_model, f"{where}[]")


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_status_has_the_keys_of_the_page(moment: str) -> None:
    """All of them in every phase, on every level."""
    shown = view(moment)
    printed = as_plain(shown)
    assert printed.keys() == documented_keys(StatusView) - {"schema_version"}
    assert list(undocumented(printed, shown)) == []


def test_the_outcome_the_plan_and_the_history_have_the_keys_of_the_page() -> None:
    """Also the ones that are a keyword of Python, or computed."""
    ended = Outcome(
        release="r",
        environment="e",
        outcome=Phase.SUCCEEDED,
        exit_code=0,
        reason="",
        from_="a",
        to="b",
        report=None,
    )
    version = {"schema_version"}
    assert keyed(ended).keys() | version == documented_keys(Outcome)
    assert keyed(ended)["from"] == "a"
    plan = snapshots.plan().as_json()
    assert plan.keys() <= documented_keys(Plan)
    assert {"good", "hash", "usual", "usual_steps", "host_steps"} <= plan.keys()
    release = view("watching").release
    assert release is not None
    listed = Listed(
        **{each.name: getattr(release, each.name) for each in fields(Release)},
        kind="release",
        asked_because="",
        approvals=(),
        carried=None,
        uncarried_since=None,
    )
    history = as_plain(History(environment="e", releases=(listed,)))
    assert history.keys() | version == documented_keys(History)
    assert history["releases"][0].keys() == documented_keys(Listed)


@pytest.mark.parametrize(
    "value", [{"lifted": 1}, failure("no", 5), Started(release="r", log="l"), view("watching")]
)
def test_every_object_that_is_printed_has_the_version(
    value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every command, also of one that fails."""
    print_json(value)
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema_version"] == SCHEMA_VERSION
    assert len(printed) > 1


def test_no_object_has_a_field_of_its_own_with_the_name_of_the_version() -> None:
    """It would replace the version."""
    for model in OBJECTS.values():
        assert "schema_version" not in {each.name for each in fields(model)}


def test_two_models_of_one_name_are_refused() -> None:
    """The page would describe only one of them."""
    found: dict[str, type[Any]] = {}
    json_reference._collect(StatusView, found)
    other = dataclass(type("HostView", (), {"__module__": __name__}))
    with pytest.raises(ValueError, match="two models of the JSON are called HostView"):
        json_reference._collect(other, found)


if __name__ == "__main__":
    PROMISED.write_text("\n".join(json_reference.field_lines()) + "\n", encoding="utf-8")
