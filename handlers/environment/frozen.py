"""The settings of a release: what its environment file said when it was planned, and how the file differs now.

A release keeps its settings to its end. They are stored in the ledger with the plan, so they contain no secret: a
reference stays a reference, and a password within an address or a command is masked. Unmasked it comes from the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from handlers.environment.masking import MASK, mask
from handlers.environment.model import Environment
from handlers.environment.references import UNRESOLVED
from handlers.errors import ConfigError

Settings = Mapping[str, Any]
"""The sections of an environment file as JSON values, with the defaults filled in."""

NOT_FROZEN = frozenset({"name", "database", "reports", "zoho", "notify", "freeze", "heal", "forge"})
"""How the ledger is found, where our files go, sync and healing, which are no part of a release, who is told, when
nothing may start, and where pull requests are merged: as the file says now. Every other section is frozen."""
SHOWN_MAX = 120


def settings(environment: Environment) -> dict[str, Any]:
    """The settings that a release of *environment* keeps. They have no secret and may be stored."""
    stored: dict[str, Any] = _masked(_whole(environment))
    return stored


def thaw(stored: Settings, now: Environment, *, release: str) -> Environment:
    """The environment of a release: its *stored* settings, with the sections that are not frozen as they are *now*.

    Raises ConfigError when a reference cannot be resolved, when a masked password is not in the file any more, or
    when the settings are not valid.
    """
    source = f"the settings of release {release}"
    return _environment(_unmasked(stored, _whole(now), source), now, source, context={})


def differences(
    stored: Settings, now: Environment, *, keeper: str = "this release", keeps: str = "keeps"
) -> list[str]:
    """How the environment file differs *now* from the *stored* settings, one sentence for each difference.

    Sections that are not frozen are not compared. *keeper* and *keeps* name who keeps the stored value.
    """
    # Validated first, so that a default that came later than the release is no difference.
    kept = settings(_environment(stored, now, "the stored settings", context=UNRESOLVED))
    return [
        f"{what}, {keeper} {keeps} {value}" if value else what
        for what, value in _differences(kept, settings(now), keeper)
    ]


def _whole(environment: Environment) -> dict[str, Any]:
    return environment.model_dump(mode="json", exclude=set(NOT_FROZEN))


def _environment(values: Settings, now: Environment, source: str, *, context: dict[str, bool]) -> Environment:
    """*values* as an environment. A key that only a newer program knows is left out, as in every stored value."""
    own = {name: getattr(now, name) for name in NOT_FROZEN}
    whole = json.loads(json.dumps({key: value for key, value in values.items() if key not in NOT_FROZEN}))
    try:
        return Environment.model_validate(whole | own, context=context)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        unknown = [fault["loc"] for fault in faults if fault["type"] == "extra_forbidden"]
        if not unknown:
            first = faults[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
        for location in unknown:
            _remove(whole, location)
        return _environment(whole, now, source, context=context)


def _remove(values: Any, location: tuple[int | str, ...]) -> None:
    for part in location[:-1]:
        values = values[part]
    del values[location[-1]]


def _masked(value: Any) -> Any:
    return _each_text(value, mask)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _unmasked(stored: Any, now: Any, where: str) -> Any:
    """*stored* with its masked texts as they are in *now*, if they are the same but for the password."""
    if isinstance(stored, Mapping):
        beside = now if isinstance(now, dict) else {}
        return {key: _unmasked(item, beside.get(key), f"{where}, {key}") for key, item in stored.items()}
    if isinstance(stored, list):
        return [_unmasked(item, _beside(item, number, now), where) for number, item in enumerate(stored)]
    if not isinstance(stored, str) or MASK not in stored or stored == now:
        return stored
    if isinstance(now, str) and mask(now) == stored:
        return now
    raise ConfigError(
        f"{where}: {stored} was planned with a password, which is not in the environment file now"
    )


def _beside(item: Any, number: int, now: Any) -> Any:
    """The part of the list *now* that belongs to *item*: the host of its name, else the one at its place."""
    if not isinstance(now, list):
        return None
    if isinstance(item, dict) and "name" in item:
        return next((other for other in now if other.get("name") == item["name"]), None)
    return now[number] if number < len(now) else None


def _differences(kept: dict[str, Any], now: dict[str, Any], keeper: str) -> Iterator[tuple[str, str]]:
    yield from _host_differences(kept.pop("hosts"), now.pop("hosts"), keeper)
    yield from _changed("", kept, now)


def _host_differences(kept: list[Any], now: list[Any], keeper: str) -> Iterator[tuple[str, str]]:
    before, after = ({host["name"]: host for host in hosts} for hosts in (kept, now))
    for name in (name for name in before if name not in after):
        yield f"hosts: {name} is not in the file now", "it"
    for name in (name for name in after if name not in before):
        yield f"hosts: {name} is new in the file, {keeper} does not have it", ""
    both = [name for name in before if name in after]
    for name in both:
        yield from _changed(f"hosts.{name}", before[name], after[name])
    order = [name for name in after if name in before]
    if order != both:
        yield f"hosts: the order is {', '.join(order)} now", f"{', '.join(both)}"


def _changed(where: str, kept: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, old in kept.items():
        name, new = f"{where}.{key}".lstrip("."), now[key]
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(name, old, new)
        elif old != new:
            yield f"{name} is {_shown(new)} now", _shown(old) if old is not None else "it unset"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            text = str(value).lower()
        case float() if value.is_integer():
            text = str(int(value))
        case str() if value:
            text = value
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 4]} ..."
