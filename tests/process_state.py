"""The state of the process that all tests of a worker share: seen before a test, compared and restored after it.

A test that leaves it changed makes others fail or pass, depending on their order. What a test must change it changes
through `monkeypatch`, or in a process of its own. The filters of warnings are not here: pytest restores them itself.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import operator
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
_ABSENT = object()

Values = dict[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the process: how it is read, as values by name, and how one of them is set back."""

    read: Callable[[], Values]
    restore: Callable[[Any, Any], list[str]]
    """Set one value back, `_ABSENT` where there was none, and name what was changed."""
    came_with: Callable[[Any, set[str]], bool] = lambda _key, _imported: False
    """Whether a new value comes from the modules that were imported meanwhile."""


def read() -> list[Values]:
    """Everything as it is now."""
    return [part.read() for part in _PARTS]


def restore(before: list[Values]) -> list[str]:
    """Set back whatever differs from *before*, and name it."""
    changed = []
    imported = sys.modules.keys() - before[0].keys()
    for part, was in zip(_PARTS, before, strict=True):
        now = part.read()
        for key in was.keys() | now.keys():
            old, new = was.get(key, _ABSENT), now.get(key, _ABSENT)
            # What is first imported within a test would come with any other test as well.
            if old is new or old == new or (old is _ABSENT and part.came_with(key, imported)):
                continue
            changed += part.restore(key, old)
    return sorted(changed)


def _variables() -> Values:
    # pytest's own: it names the test and its phase.
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _set_variable(name: str, value: Any) -> list[str]:
    if value is _ABSENT:
        del os.environ[name]
    else:
        os.environ[name] = value
    return [f"environment variable {name}"]


def _set_module(name: str, module: Any) -> list[str]:
    sys.modules[name] = module
    return [f"sys.modules[{name!r}]"]


def _signals() -> Values:
    return {number: signal.getsignal(number) for number in _NUMBERS}


_NUMBERS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}
"""Two that have no handler, and the one with which pytest-timeout ends a test that hangs."""


def _set_signal(number: int, handler: Any) -> list[str]:
    signal.signal(number, handler)
    return [f"handler of {signal.Signals(number).name}"]


def _umask() -> int:
    # There is no way to only look. Whatever another thread makes in this moment is ours alone.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _interpreter() -> Values:
    found: Values = {
        "working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "umask": _umask(),
        "threshold of the garbage collector": gc.get_threshold(),
        "garbage collector": gc.isenabled(),
        "frozen objects of the garbage collector": gc.get_freeze_count(),
        "recursion limit": sys.getrecursionlimit(),
        "default timeout of sockets": socket.getdefaulttimeout(),
        "logging.disable": logging.root.manager.disable,
        "limit of open files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    if sys.version_info < (3, 14):
        # Later Pythons warn about the mere question.
        found["event loop policy"] = asyncio.get_event_loop_policy()
    return found


def _set_interpreter(name: str, value: Any) -> list[str]:
    setters: Mapping[str, Callable[[Any], Any]] = {
        "working directory": os.chdir,
        "sys.path": lambda paths: sys.path.__setitem__(slice(None), paths),
        "umask": os.umask,
        "threshold of the garbage collector": lambda numbers: gc.set_threshold(*numbers),
        "garbage collector": lambda on: gc.enable() if on else gc.disable(),
        "frozen objects of the garbage collector": lambda _: gc.unfreeze(),
        "recursion limit": sys.setrecursionlimit,
        "default timeout of sockets": socket.setdefaulttimeout,
        "logging.disable": logging.disable,
        "limit of open files": lambda limits: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
        "event loop policy": asyncio.set_event_loop_policy,
    }
    setters[name](value)
    return [name]


_UNTOUCHED = (logging.NOTSET, False, True, (), ())


def _loggers() -> Values:
    """Each logger that is not as `getLogger` makes it."""
    ours = {name.partition(".")[0] for name, _ in _own_modules()} | {""}
    found = {}
    for name, logger in [("", logging.root), *logging.root.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger):
            # Libraries hang filters of their own on their own loggers when they are first used.
            filters = tuple(logger.filters) if name.partition(".")[0] in ours else ()
            state = (logger.level, logger.disabled, logger.propagate, tuple(_lasting(logger)), filters)
            if state != _UNTOUCHED:
                found[name] = state
    return found


def _lasting(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers without those that pytest adds for each phase of a test, on a muted logger too."""
    return [handler for handler in logger.handlers if not type(handler).__module__.startswith("_pytest.")]


def _set_logger(name: str, state: Any) -> list[str]:
    logger = logging.getLogger(name)
    level, logger.disabled, logger.propagate, handlers, filters = _UNTOUCHED if state is _ABSENT else state
    logger.setLevel(level)
    logger.handlers[:] = [*handlers, *(set(logger.handlers) - set(_lasting(logger)))]
    logger.filters[:] = filters
    return [f"logger {name or 'root'}"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Namespace:
    """The names of one of our modules or classes, what they stood for, and which of them are tables."""

    names: dict[str, Any]
    tables: list[str]
    classes: list[type]

    @cached_property
    def without_tables(self) -> tuple[_Namespace, list[Any]]:
        """What a look gives if it has no table: one object, as so many new ones start the garbage collector."""
        return self, []


def _globals() -> Values:
    """The names in our own modules and classes; of a table its content, so that a cache that was filled is seen."""
    found: Values = {}
    for name, module in _own_modules():
        found[name, name] = seen, _ = _look(name, name, vars(module))
        for kind in seen.classes:
            found[name, kind] = _look(name, kind, vars(kind))
    return found


def _look(name: str, owner: str | type, names: Mapping[str, Any]) -> tuple[_Namespace, list[Any]]:
    """A namespace, the same object as long as nothing is assigned in it, and copies of its tables."""
    seen = _SEEN.get((name, owner))
    # Twice a test, for each of 28,000 names: by functions in C, as it was a quarter of the time of small tests.
    if (
        seen is None
        or len(seen.names) != len(names)
        or not all(map(operator.is_, seen.names.values(), names.values()))
        or seen.names.keys() != names.keys()
    ):
        ours = {key: value for key, value in names.items() if not key.startswith("__")}
        seen = _SEEN[name, owner] = _Namespace(
            names=dict(names),
            tables=[key for key, value in ours.items() if type(value) in (dict, list, set)],
            classes=[kind for kind in ours.values() if isinstance(kind, type) and kind.__module__ == name],
        )
    return (seen, [names[key].copy() for key in seen.tables]) if seen.tables else seen.without_tables


_SEEN: dict[tuple[str, str | type], _Namespace] = {}


def _own_modules() -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        if name not in _OWN:
            file = str(getattr(module, "__file__", None) or "")
            below = file.startswith(f"{ROOT}/") and "/site-packages/" not in file
            _OWN[name] = below and not file.startswith(f"{ROOT}/tests/")
        if _OWN[name]:
            yield name, module


_OWN: dict[str, bool] = {}
"""Whether a module is ours, by its name."""


def _set_namespace(key: tuple[str, str | type], before: tuple[_Namespace, list[Any]]) -> list[str]:
    name, owner = key
    target = sys.modules[name] if isinstance(owner, str) else owner
    was, tables = before
    now, changed = dict(vars(target)), set()
    for attribute in was.names.keys() | now.keys():
        old, new = was.names.get(attribute, _ABSENT), now.get(attribute, _ABSENT)
        if old is new or attribute.startswith("__") or (old is _ABSENT and isinstance(new, ModuleType)):
            continue
        changed.add(attribute)
        if old is _ABSENT:
            delattr(target, attribute)
        else:
            setattr(target, attribute, old)
    for attribute, content in zip(was.tables, tables, strict=True):
        table = was.names[attribute]
        if table != content:
            changed.add(attribute)
            # In place: other modules hold the same table by the name under which they imported it.
            table.clear()
            table.extend(content) if isinstance(table, list) else table.update(content)
    where = name if isinstance(owner, str) else f"{name}.{owner.__qualname__}"
    return [f"{where}.{attribute}" for attribute in changed]


_PARTS = (
    Part(
        read=lambda: dict(sys.modules), restore=_set_module, came_with=lambda name, imported: name in imported
    ),
    Part(read=_interpreter, restore=_set_interpreter),
    Part(read=_variables, restore=_set_variable),
    Part(read=_signals, restore=_set_signal),
    Part(
        read=_loggers,
        restore=_set_logger,
        came_with=lambda name, imported: name.partition(".")[0] in imported,
    ),
    Part(read=_globals, restore=_set_namespace, came_with=lambda key, imported: key[0] in imported),
)
