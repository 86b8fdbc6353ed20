"""Find an environment file, read it, and explain its errors. `model` defines the keys."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from handlers.environment.model import NAME, Environment
from handlers.errors import ConfigError

DIRECTORY_VARIABLE = "RUNBOOK_ENVIRONMENTS"
"""The variable with the folder of the environment files. Default: `environments/` in the working directory."""


def directory() -> Path:
    """The folder of the environment files."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, "environments"))


def names() -> list[str]:
    """The names of the environments, sorted, without `reference`, which only explains the keys."""
    return sorted(path.stem for path in directory().glob("*.toml") if path.stem != "reference")


_BY_NAME: dict[str, Path] = {}
"""Files that were loaded by their path, by name: a release stores only the name of its environment."""


def load_environment(name_or_path: str) -> Environment:
    """Read and check the environment called *name_or_path*, or the file at that path.

    Raises ConfigError with the file, the key, the error and the allowed values.
    """
    path = _BY_NAME.get(name_or_path, Path(name_or_path))
    by_path = path.suffix == ".toml"
    if not by_path:
        path = directory() / f"{name_or_path}.toml"
        if not NAME.match(name_or_path) or not path.is_file():
            raise ConfigError(_unknown(name_or_path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    environment = parse(values, source=str(path))
    if by_path:
        _BY_NAME[environment.name] = path
    elif environment.name != path.stem:
        raise ConfigError(f"{path}: name is {environment.name!r}, but must be the file's name, {path.stem!r}")
    return environment


def parse(values: dict[str, Any], *, source: str) -> Environment:
    """Check *values* (parsed TOML); *source* names the file in errors. Raises ConfigError."""
    try:
        return Environment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None


def _unknown(name: str) -> str:
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    listed = ", ".join(known) or "none"
    return f"there is no environment {name!r} in {directory()}/ (known: {listed}).{hint}"


def _explain(error: ValidationError, source: str) -> str:
    """One line for each error of pydantic, with the dotted name of the key."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            allowed = _keys_at(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(allowed)}"
            lines.append(f"{source}: unknown key {where}; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{source}: {where} is missing; environments/reference.toml explains it")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{source}: {where or 'the file'}: {message}")
    return "\n".join(lines)


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Environment
    for part in location:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[str(part)].annotation
        while not isinstance(annotation, type):
            annotation = next(a for a in get_args(annotation) if a is not Ellipsis)
        model = annotation
    return list(model.model_fields)
