"""The options that several commands share, and dataclasses that group options that always come together."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints
from uuid import UUID

import typer

from handlers.errors import Refused
from handlers.queue.event import EntityType, Status

ENVIRONMENT_VARIABLE = "RUNBOOK_ENVIRONMENT"


def _environments(incomplete: str) -> list[str]:
    """For the shell's completion: the names of the environment files."""
    from handlers.environment.load import names

    return [name for name in names() if name.startswith(incomplete)]


EnvironmentOption = Annotated[
    str,
    typer.Option(
        "--environment",
        "-e",
        help="Name of the environment file (environments/NAME.toml), or a path to one.",
        autocompletion=_environments,
        envvar=ENVIRONMENT_VARIABLE,
    ),
]
OneEnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        help="Name of the environment file (environments/NAME.toml), or a path to one.",
        autocompletion=_environments,
        envvar=ENVIRONMENT_VARIABLE,
        show_default=False,
    ),
]
OptionalEnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        help="Name of the environment file, or a path to one. Only --due needs none: then it is all of them.",
        autocompletion=_environments,
        envvar=ENVIRONMENT_VARIABLE,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print only JSON on stdout; the last line is one object.")
]
ByOption = Annotated[
    str,
    typer.Option("--by", help="Your name, for the ledger. Default: the login name.", show_default=False),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="One sentence for the ledger and the report.")]
ReleaseOption = Annotated[
    str | None,
    typer.Option("--release", "-r", help="Id of a release. Default: the unfinished or newest one."),
]
PlainOption = Annotated[
    bool,
    typer.Option("--plain", help="No colour and no redrawing: one line for each finished step."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Start without confirmation.")]
DetachOption = Annotated[
    bool,
    typer.Option("--detach", help="Return after the start; follow it with `runbook status --watch`."),
]
PrefectOption = Annotated[
    bool, typer.Option("--without-prefect", help="Run the same steps without a Prefect server.")
]
TakeOverOption = Annotated[
    str, typer.Option("--take-over", help="Take the lock from a live controller, for this reason.")
]


PastMigrationsOption = Annotated[
    bool,
    typer.Option(
        "--past-migrations",
        help="Go back although the plan says that the revision before does not survive them.",
    ),
]
OverrideFreezeOption = Annotated[
    bool,
    typer.Option(
        "--override-freeze", help="Start it in a freeze, as a person whom it names; needs --reason."
    ),
]
OverridePromotionOption = Annotated[
    bool,
    typer.Option(
        "--override-promotion",
        help="Start it unproven by the environment before, as a person whom the file names; needs --reason.",
    ),
]
SinceOption = Annotated[
    str,
    typer.Option(
        "--since",
        help="How far back: 90s, 30m, 1h, 7d; at most 31d.",
        show_default=False,
    ),
]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", help="Only this host; may be repeated. Default: all.", show_default=False),
]
UseFileOption = Annotated[
    bool,
    typer.Option(
        "--use-file", help="From now on use the environment file as it is, not the settings of the plan."
    ),
]


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """Who requests a release, why, and whether it starts without confirmation."""

    reason: ReasonOption = ""
    by: ByOption = ""
    yes: YesOption = False
    override_freeze: OverrideFreezeOption = False


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a release is executed and displayed."""

    without_prefect: PrefectOption = False
    detach: DetachOption = False
    json: JsonOption = False
    plain: PlainOption = False


def expand_options(command: Callable[..., int]) -> Callable[..., int]:
    """Expand dataclass parameters of *command*: Typer sees each field as an option, *command* gets one value."""
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if is_dataclass(parameter.annotation)
    }
    expanded: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        options = _options(groups[name]) if name in groups else [parameter]
        expanded += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]

    @functools.wraps(command)
    def call(**values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    call.__annotations__ = {parameter.name: parameter.annotation for parameter in expanded}
    # Typer reads the parameters with `inspect`, which looks at this attribute; mypy does not know it.
    call.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|day|days)", re.IGNORECASE | re.ASCII)
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "day": 86_400, "days": 86_400}
SPAN_SECONDS_MAX = 31 * 86_400


def parse_span(text: str, *, least: str = "1m") -> float:
    """The seconds of a span such as `90m`, `24h` or `7d`, not less than *least*. Raises Refused."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise Refused(f"--since {text!r} is no span of time: say 90m, 24h or 7d")
    seconds = float(found[1]) * _UNITS[found[2].lower()]
    if not float(least[:-1]) * _UNITS[least[-1]] <= seconds <= SPAN_SECONDS_MAX:
        raise Refused(f"--since {text!r} must be between {least} and 31d")
    return seconds


def parse_entity(name: str) -> EntityType:
    """The entity type with this name; case, - and _ do not matter. Raises Refused for an unknown name."""
    normalized = name.replace("_", "").replace("-", "").lower()
    for entity in EntityType:
        if entity.value.lower() == normalized:
            return entity
    raise Refused(f"unknown entity {name!r}: {_meant(normalized, [str(entity) for entity in EntityType])}")


def parse_status(name: str) -> Status:
    """The status with this name; - and _ are the same. Raises Refused for an unknown name."""
    normalized = name.replace("-", "_").lower()
    if normalized in list(Status):
        return Status(normalized)
    raise Refused(f"unknown status {name!r}: {_meant(normalized, [str(status) for status in Status])}")


def _meant(name: str, names: list[str]) -> str:
    lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name, lower, n=1)
    did_you_mean = f"did you mean {lower[close[0]]}? " if close else ""
    return f"{did_you_mean}choose one of {', '.join(names)}"


def parse_event(text: str) -> UUID:
    """The id of an event. Raises Refused when it is none."""
    try:
        return UUID(text.strip())
    except ValueError:
        raise Refused(
            f"{text!r} is no id of an event: `runbook queue list` shows the ids, "
            "and `queue list --key` finds the events of a record"
        ) from None
