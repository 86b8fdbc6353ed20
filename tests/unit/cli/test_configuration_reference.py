"""docs/configuration.md is what the models and reference.toml make of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.cli.configuration_reference import SOURCE, reference, tables, type_of
from handlers.environment.bars import Bars
from handlers.environment.model import Environment, Host, Ssh

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    """Made anew it is the same: `python -m flows.cli.configuration_reference > docs/configuration.md`."""
    assert PAGE.read_text(encoding="utf-8") == reference(SOURCE.read_text(encoding="utf-8"))


def test_every_table_and_key_of_the_reference_is_read() -> None:
    """The page leaves nothing out: a line that its reader does not understand would be missed in silence."""
    shown = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    for table in tables(SOURCE.read_text(encoding="utf-8")):
        part = shown
        for name in table.path:
            part = part[name][0] if isinstance(part[name], list) else part[name]
        plain = {
            key
            for key, value in part.items()
            if not isinstance(value, dict)
            and not (isinstance(value, list) and value and isinstance(value[0], dict))
        }
        assert plain <= table.keys.keys(), table.heading


def test_a_key_without_a_comment_and_an_unknown_key_are_seen() -> None:
    """A comment belongs to what stands right below it; a key that no model has is an error of the page."""
    [top, table] = tables("# one\n\nname = 1\n# two\n[ssh]\n# three\nuser = 2\n")
    assert (top.keys, table.meaning, table.keys) == ({"name": ""}, "two", {"user": "three"})
    with pytest.raises(KeyError):
        reference("[ssh]\nusr = 1\n")


@pytest.mark.parametrize(
    ("model", "key", "words"),
    [
        (Environment, "execution", '`"workers"` or `"inline"`'),
        (Environment, "hosts", "list of table, at least one"),
        (Host, "port", "integer, ≥ 1 and ≤ 65535"),
        (Ssh, "key_file", "path"),
        (Ssh, "key_passphrase", "reference"),
        (Ssh, "agent", "true or false"),
        (Bars, "oldest_seconds", "number, > 0 and ≤ 172800"),
    ],
)
def test_a_type_is_said_in_words(model: type[BaseModel], key: str, words: str) -> None:
    """With the bounds that the model keeps."""
    assert type_of(model.model_fields[key]) == words
