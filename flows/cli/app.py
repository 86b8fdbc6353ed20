"""The application that the commands register with, and the options that they share."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="runbook",
    help="Deploy a revision, prove it on one dead letter, drain the others, watch, and be back by itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
queue_app = typer.Typer(
    help="The webhook queue: count it, hold it back, or try a payload on the core.", no_args_is_help=True
)
db_app = typer.Typer(help="The ledger's schema and the ERP's tables.", no_args_is_help=True)
app.add_typer(queue_app, name="queue")
app.add_typer(db_app, name="db")

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
