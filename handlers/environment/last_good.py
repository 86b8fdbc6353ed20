"""The last good environment file: a release goes on with it while the file is missing, half written, or wrong.

Within a process it is in memory. For the next process, which may continue a release after a crash, a private copy of
the file is kept in our state folder, with the settings of the newest releases: a rollback may have to do without the
ledger. Only what continues a release uses the copy: a new release is refused with the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from handlers.environment import load
from handlers.environment.frozen import Settings
from handlers.environment.load import EnvironmentFile
from handlers.environment.model import Environment
from handlers.environment.references import UNRESOLVED
from handlers.errors import ConfigError
from handlers.state_folder import STATE, private_folder

WAIT_SECONDS = 3.0
"""How long a new process waits for a file that is being written, before it uses the copy."""
POLL_SECONDS = 0.1
FOLDER = STATE / "environments"
SETTINGS_MAX = 10
"""The settings of so many releases are kept with a copy."""
LATELY_SECONDS = 2 * 86_400
"""An environment whose file is missing is still looked after for so long: a release of it may be unfinished."""
ABANDONED_SECONDS = 86_400
"""A copy of a file whose folder is gone (a rehearsal's) is removed after this time."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_GOOD: dict[Path, EnvironmentFile] = {}
"""The last good file of this process, by its absolute path."""
_KEPT: dict[Path, dict[str, Any]] = {}
"""The copies that this process wrote."""


async def last_good(name_or_path: str) -> Environment:
    """The environment as its file is now; if that cannot be used, as it was at the last good read.

    A fault is logged. Raises ConfigError with the fault when the file was never good on this machine.
    """
    return (await _file(name_or_path)).environment


def keep(name_or_path: str, settings: Mapping[str, Settings] | None = None) -> None:
    """Keep a private copy of the file for the next process that continues a release of this environment.

    *settings* are those of a release, by its id. They have no secret, and stay when the file changes.
    """
    try:
        file = load.read_file(name_or_path)
    except ConfigError:
        return
    path, settings = file.path.absolute(), settings or {}
    known = _KEPT.get(path, {})
    if known.get("text") == file.text and settings.items() <= known["settings"].items():
        return
    together = dict([*kept_settings(name_or_path).items(), *settings.items()][-SETTINGS_MAX:])
    values = {"path": str(path), "text": file.text, "settings": together}
    try:
        _write(path, values)
        _KEPT[path] = values
    except OSError as error:
        log.warning("no copy of %s could be kept: %s", path, error)


def kept_settings(name_or_path: str) -> dict[str, Settings]:
    """The settings of the newest releases that this machine had to do with, by their ids."""
    copy = _copy(load.path_of(name_or_path).absolute()).get("settings")
    return copy if isinstance(copy, dict) else {}


def names() -> list[str]:
    """The names of the environments, also of one whose file is missing although it had a release lately."""
    folder = load.directory().absolute()
    missing = set()
    for copy in FOLDER.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            path = Path(json.loads(copy.read_text(encoding="utf-8"))["path"])
            if path.parent == folder and time.time() - copy.stat().st_mtime < LATELY_SECONDS:
                missing.add(path.stem)
    return sorted({*load.names(), *missing})


async def until_good(read: Callable[[], T]) -> T:
    """What *read* returns, tried again for a moment while it raises ConfigError: a file may be half written."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return read()
        except ConfigError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)


async def _file(name_or_path: str) -> EnvironmentFile:
    try:
        return _remember(load.read_file(name_or_path))
    except ConfigError as error:
        first_fault = error
    path = load.path_of(name_or_path).absolute()
    if path in _GOOD:
        _warn(first_fault, "going on with the file as it was")
        return _GOOD[path]
    copy = _read_copy(path)
    if copy is None and not path.exists():
        raise first_fault
    try:
        return _remember(await until_good(lambda: load.read_file(name_or_path)))
    except ConfigError:
        if copy is None:
            raise
    _warn(first_fault, f"using the copy of the file in {_copy_path(path)}")
    if load.is_path(name_or_path):
        load._BY_NAME[copy.environment.name] = path
    return _remember(copy)


def _remember(file: EnvironmentFile) -> EnvironmentFile:
    _GOOD[file.path.absolute()] = file
    return file


def _warn(error: ConfigError, what: str) -> None:
    log.warning("%s; %s", str(error).replace("\n", "; "), what)


def _copy_path(path: Path) -> Path:
    """The copy of the file at *path*. Two files of one name have two copies."""
    return FOLDER / f"{path.stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}.json"


def _copy(path: Path) -> dict[str, Any]:
    """The copy of the file at *path*; empty when there is none, or when it is damaged."""
    try:
        copy = json.loads(_copy_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return copy if isinstance(copy, dict) else {}


def _read_copy(path: Path) -> EnvironmentFile | None:
    text = _copy(path).get("text")
    if not isinstance(text, str):
        return None
    try:
        environment = load.parse_text(text, source=str(_copy_path(path)), context=UNRESOLVED)
    except ConfigError:
        return None
    return EnvironmentFile(path=path, text=text, environment=environment)


def _write(path: Path, values: Mapping[str, object]) -> None:
    private_folder(FOLDER)
    _remove_abandoned()
    copy = _copy_path(path)
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
    # The file may name a password in database.url: the copy is private from its first byte.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned() -> None:
    for copy in FOLDER.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            old = time.time() - copy.stat().st_mtime > ABANDONED_SECONDS
            if old and not Path(json.loads(copy.read_text(encoding="utf-8"))["path"]).parent.exists():
                copy.unlink()
