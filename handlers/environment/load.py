"""Find an environment file, read it, and explain its errors. `model` defines the keys."""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from handlers.environment import people
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


@dataclass(frozen=True, kw_only=True)
class EnvironmentFile:
    """An environment file as it was read."""

    path: Path
    text: str
    environment: Environment


def load_environment(name_or_path: str) -> Environment:
    """Read and check the environment called *name_or_path*, or the file at that path.

    Raises ConfigError with the file, the key, the error and the allowed values.
    """
    return read_file(name_or_path).environment


def read_file(name_or_path: str) -> EnvironmentFile:
    """The same, with the path and the text of the file."""
    path = path_of(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_path(name_or_path) or name_or_path in _BY_NAME:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        raise ConfigError(_unknown(name_or_path)) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text, at byte {error.start}") from error
    environment = parse_text(text, source=str(path))
    if is_path(name_or_path):
        _BY_NAME[environment.name] = path
    elif name_or_path in _BY_NAME and environment.name != name_or_path:
        raise ConfigError(f"{path}: name is {environment.name!r} now, it was {name_or_path!r}")
    elif name_or_path not in _BY_NAME and environment.name != path.stem:
        raise ConfigError(f"{path}: name is {environment.name!r}, but must be the file's name, {path.stem!r}")
    return EnvironmentFile(path=path, text=text, environment=environment)


def path_of(name_or_path: str) -> Path:
    """The file of the environment called *name_or_path*. Raises ConfigError when there cannot be one."""
    if name_or_path in _BY_NAME:
        return _BY_NAME[name_or_path]
    if is_path(name_or_path):
        return Path(name_or_path)
    if not NAME.match(name_or_path):
        raise ConfigError(_unknown(name_or_path))
    return directory() / f"{name_or_path}.toml"


def env_option(name_or_path: str) -> str:
    """The option for this environment in a command that we print: its name, or the path that this process was given.

    The path is absolute: who reads the command, in a mail or a report, may be in another folder.
    """
    path = path_of(name_or_path)
    if name_or_path in _BY_NAME or is_path(name_or_path):
        return f"-e {shlex.quote(os.path.abspath(path))}"
    return f"-e {name_or_path}"


def beside(name: str, other: str) -> str:
    """How to load the environment *other* for that called *name*: by its name, or as the file beside that of *name*."""
    if other in _BY_NAME or name not in _BY_NAME:
        return other
    return str(_BY_NAME[name].with_name(f"{other}.toml"))


def is_path(name_or_path: str) -> bool:
    """Whether it is a file's path, and not a name."""
    return Path(name_or_path).suffix == ".toml"


def parse_text(text: str, *, source: str, context: dict[str, bool] | None = None) -> Environment:
    """The environment in *text*, a TOML document; *source* names it in errors. Raises ConfigError."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    return parse(values, source=source, context=context)


def parse(values: dict[str, Any], *, source: str, context: dict[str, bool] | None = None) -> Environment:
    """Check *values* (parsed TOML); *source* names the file in errors. Raises ConfigError."""
    try:
        environment = Environment.model_validate(values, context=context)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None
    # Not in the model: the settings of a release and the file as it is now come together there.
    overrides = [
        (f"freeze.{number}.override_roles", each.override_roles)
        for number, each in enumerate(environment.freeze)
    ]
    promotion = environment.promotion
    overrides += [("promotion.override_roles", promotion.override_roles)] if promotion else []
    faults = people.faults(environment.roles, environment.approval, overrides)
    if promotion is not None and promotion.environment == environment.name:
        faults.append(
            f"promotion.environment: it names {environment.name} itself, so no release could ever start"
        )
    if environment.forge is not None and environment.forge.head_branch == environment.deploy.branch:
        faults.append(
            "forge.head_branch: it is deploy.branch itself, and a branch cannot be merged into itself"
        )
    if faults:
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in faults))
    return environment


def _unknown(name: str) -> str:
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f". Did you mean {near[0]}?" if near else ""
    listed = ", ".join(known) or "none"
    return f"there is no environment {name!r}: {directory() / name}.toml is missing (known: {listed}){hint}"


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
