"""The names of the steps on the Prefect page."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

TASKS = Path(__file__).parents[2] / "tasks"


def steps() -> Iterator[tuple[str, str, set[str]]]:
    """Every step: where it is, its title, and the names of its arguments."""
    for file in sorted(TASKS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", ()):
                if isinstance(node, ast.AsyncFunctionDef) and isinstance(decorator, ast.Call):
                    match decorator.args:
                        case [ast.Name(), ast.Constant(value=str(title))]:
                            names = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
                            yield f"{file.stem}.{node.name}", title, names


STEPS = {where: (title, names) for where, title, names in steps()}


def test_the_steps_are_found() -> None:
    """The checks below do not pass by looking at nothing."""
    assert len(STEPS) > 50
    assert STEPS["drain.settle"] == ("Batch {number}: wait until it settles", {"run", "number"})


@pytest.mark.parametrize("where", STEPS)
def test_a_title_names_only_arguments_of_its_step(where: str) -> None:
    """Each {name} in a title is an argument, so that the page never shows braces."""
    title, names = STEPS[where]
    for _, field, _, _ in string.Formatter().parse(title):
        assert field is None or field.partition(".")[0] in names


@pytest.mark.parametrize("where", STEPS)
def test_a_title_is_for_people(where: str) -> None:
    """It begins with a capital and has no name of a function."""
    title, _ = STEPS[where]
    assert title[0].isupper()
    assert "_" not in "".join(text for text, *_ in string.Formatter().parse(title))
