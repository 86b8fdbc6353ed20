"""The options that commands share: each declared once, and those that always come together handed over as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from handlers.errors import Refused
from handlers.queue.event import EntityType

EnvironmentOption = Annotated[
    str,
    typer.Option(
        "--environment",
        "-e",
        help="Name of the environment file (environments/NAME.toml), or a path to one.",
        envvar="RUNBOOK_ENVIRONMENT",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Nothing but JSON on stdout; the last line is one object.")
]
ByOption = Annotated[
    str, typer.Option("--by", help="Who asks for it; the user's name when left out.", show_default=False)
]
ReasonOption = Annotated[str, typer.Option("--reason", help="One sentence for the ledger and the report.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", "-r", help="A release by its id; else the live or newest one.")
]
PlainOption = Annotated[
    bool,
    typer.Option("--plain", help="No colour and no moving screen: one line for each thing that happens."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Return once it has begun; `runbook status --watch` shows the rest.")
]
PrefectOption = Annotated[
    bool, typer.Option("--without-prefect", help="Make the same calls without any Prefect server.")
]
TakeOverOption = Annotated[
    str, typer.Option("--take-over", help="Reason for taking the lock from a controller that still lives.")
]


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """Who begins it and why."""

    reason: ReasonOption = ""
    by: ByOption = ""
    yes: YesOption = False


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a release is carried out and shown."""

    without_prefect: PrefectOption = False
    detach: DetachOption = False
    json: JsonOption = False
    plain: PlainOption = False


def expand_options(command: Callable[..., int]) -> Callable[..., int]:
    """Let Typer see every field of a group as an option of its own, and *command* the group as one value."""
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: one.annotation for name, one in parameters.items() if is_dataclass(one.annotation)
    }
    shown: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        options = _options(groups[name]) if name in groups else [parameter]
        shown += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in options]

    @functools.wraps(command)
    def call(**values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        return command(**values)

    call.__annotations__ = {one.name: one.annotation for one in shown}
    # `inspect` reads this attribute, and Typer with it; the type of a function does not know it.
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]


def entity_called(name: str) -> EntityType:
    """The kind of record that a person means."""
    wanted = name.replace("_", "").replace("-", "").lower()
    for kind in EntityType:
        if kind.value.lower() == wanted:
            return kind
    raise Refused(f"there is no entity {name!r}: it may be {', '.join(EntityType)}")
