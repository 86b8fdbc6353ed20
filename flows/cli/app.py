"""The application that the commands register with, and its overview."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

SHELVES: dict[str, dict[str, str]] = {
    "Try it": {"rehearse": "a whole release on a target of its own on this machine"},
    "Release": {
        "check": "is everything ready for a release? Changes nothing",
        "plan": "what a release would do, with its hash; changes nothing",
        "release": "deploy, prove, drain, watch; back by itself when the gate says no",
        "resume": "go on with a release that is held, or whose process died",
        "rollback": "take the newest release back, on every host, and prove it",
        "abort": "end a planned or held release where it stands",
        "lift": "let a revision that was left be released again",
    },
    "Look": {
        "status": "how the live or newest release stands, and why it waits",
        "history": "the newest releases",
        "report": "write a release's verification report again",
        "doctor": "what is odd about the schema, the queue and the locks",
    },
    "By hand, on what runs now": {
        "canary": "prove it on exactly one dead letter",
        "drain": "prove it, then drain the dead letters",
        "watch": "watch live traffic for the environment's window",
    },
    "Queue and database": {
        "queue": "count the queue, hold it back, try a payload",
        "db": "the ledger's schema, and additions to the ERP's tables",
    },
    "Serve": {
        "receive": "take Zoho's webhooks into the queue",
        "worker": "apply events from the queue: what a deployed ERP runs",
        "up": "a local Prefect server and worker, to release from its page",
    },
}
"""Every command in the order in which a release manager meets it, with the line that the overview says about it."""


class _Shelves(TyperGroup):
    """The overview by what one wants to do, instead of by the order in which modules are imported."""

    # Any: Typer keeps its copy of click to itself.
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands that are there, a shelf after the other."""
        there = self.list_commands(ctx)
        for shelf, commands in SHELVES.items():
            with formatter.section(shelf):
                formatter.write_dl([(f"{name:<9}", line) for name, line in commands.items() if name in there])


app = typer.Typer(
    name="runbook",
    cls=_Shelves,
    help="Deploy a revision, prove it on one dead letter, drain the others, watch, and be back by itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tds-runbook {version('tds-runbook')}")
        raise typer.Exit


@app.callback()
def _common(
    version_: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is."),
    ] = False,
) -> None:
    del version_  # Its callback has answered.


queue_app = typer.Typer(
    help="The webhook queue: count it, hold it back, or try a payload on the core.", no_args_is_help=True
)
db_app = typer.Typer(help="The ledger's schema and the ERP's tables.", no_args_is_help=True)
app.add_typer(queue_app, name="queue")
app.add_typer(db_app, name="db")
