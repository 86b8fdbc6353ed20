"""The application that the commands register with, and its overview."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

COMMAND_GROUPS: dict[str, dict[str, str]] = {
    "Try it": {"rehearse": "rehearse a whole release on a temporary target"},
    "Release": {
        "check": "check that everything is ready; changes nothing",
        "plan": "show what a release would do, with its hash; changes nothing",
        "release": "deploy, prove, drain, watch; rolls back automatically on a breach",
        "pr": "bring a commit onto the branch: push, pull request, review, merge",
        "approve": "approve exactly the plan that you have read, by its hash",
        "reject": "end a plan that waits for approval",
        "resume": "continue a release that is held, or whose process died; --due for timers",
        "hold": "pause a release and leave everything as it is",
        "skip": "end a canary, drain or watch without its result, with a reason",
        "rollback": "deploy the previous revision on every host, and prove it",
        "abort": "end a release; back to the previous revision where hosts were changed",
        "unblock": "take a rolled-back revision out of quarantine",
    },
    "Inspect": {
        "status": "show the current release and what it waits for",
        "guard": "show the checks of the 24 h after a release; --due for timers",
        "heal": "retry old dead letters, take events back from dead workers",
        "verify": "measure every check now, with or without a release",
        "history": "list the newest releases",
        "report": "write a release's verification report again",
        "explain": "print the arithmetic of each decision",
        "replay": "judge a release again, or a file of events; other numbers: what if",
        "notify": "send what people should hear of, list it, test the addresses",
        "doctor": "list what is wrong; --bundle packs a bug report",
    },
    "One phase, with the revision that runs now": {
        "canary": "prove it on exactly one dead letter",
        "drain": "prove it, then drain the dead letters",
        "watch": "watch live traffic for the environment's window",
    },
    "Queue and database": {
        "queue": "show, list and throttle the queue; try a payload",
        "workers": "show which workers live; restart them",
        "logs": "print the units' logs from the hosts",
        "send-test-webhook": "send a test event, follow it to its row, remove it",
        "await-webhook": "wait for a real webhook, and say what came of it",
        "db": "migrate the ledger's schema, add to the ERP's tables",
        "sync": "bring the tables up to date from Zoho, without webhooks",
    },
    "Serve": {
        "board": "a page that follows releases, JSON, metrics for Prometheus",
        "receive": "write Zoho's webhooks to the queue",
        "worker": "apply events from the queue (a deployed ERP runs this)",
        "up": "run a local Prefect server and worker",
    },
}
"""Every command with its line in `runbook --help`, in the order in which a release manager needs them."""

MODULES = {
    "approve": ("approve", "reject"),
    "ask": ("hold", "skip"),
    "board": ("board",),
    "decide": ("rollback", "abort", "unblock", "lift"),
    "db": ("db",),
    "doctor": ("doctor",),
    "examine": ("check", "report"),
    "explain": ("explain", "replay"),
    "guard": ("guard",),
    "heal": ("heal",),
    "look": ("queue",),
    "notify": ("notify",),
    "pr": ("pr",),
    "quarantine": ("queue",),
    "queue": ("queue",),
    "rehearse": ("rehearse",),
    "resume": ("resume",),
    "release": ("plan", "release", "canary", "drain", "watch"),
    "serve": ("worker", "receive", "up"),
    "status": ("status", "history"),
    "sync": ("sync",),
    "try_": ("queue",),
    "webhooks": ("send-test-webhook", "await-webhook"),
    "logs": ("logs",),
    "workers": ("workers",),
    "verify": ("verify",),
}
"""The modules of flows.cli and the commands that they register, hidden ones too: the names of before."""


class _Commands(TyperGroup):
    """The commands, listed in the order of COMMAND_GROUPS. Only the module of the command that is run is imported.

    Each restart of the ERP waits for a worker, and a status or a timer that takes a second of the processor is slow.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  The signature is click's.
        """Every command, also of modules that are not imported."""
        return [name for commands in COMMAND_GROUPS.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command, from its module. None where there is no such command: then the error names the closest one."""
        modules = [name for name, commands in MODULES.items() if cmd_name in commands]
        for name in modules or MODULES:
            import_module(f"flows.cli.{name}")
        self.commands.update(get_group(app).commands)
        return self.commands.get(cmd_name)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The commands that begin so, without importing one: a shell asks at each press of the tabulator."""
        # Imported here: Typer has its own copy of click and does not export this. Another version may not have it.
        from typer._click.shell_completion import CompletionItem

        if incomplete[:1] == "-":
            return super().shell_complete(ctx, incomplete)
        lines = {name: line for commands in COMMAND_GROUPS.values() for name, line in commands.items()}
        return [
            CompletionItem(name, help=line) for name, line in lines.items() if name.startswith(incomplete)
        ]

    # Any: Typer does not export the types of its copy of click.
    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the registered commands, group by group."""
        for group, commands in COMMAND_GROUPS.items():
            lines = [(f"{name:<9}", line) for name, line in commands.items()]
            with formatter.section(group):
                formatter.write_dl(lines)


app = typer.Typer(
    name="runbook",
    cls=_Commands,
    help=(
        "Deploy a revision, prove it on one dead letter, drain the others, watch, "
        "and roll back automatically on a breach."
    ),
    no_args_is_help=True,
    add_completion=True,
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
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del version_  # Its callback has printed the version.


queue_app = typer.Typer(
    help="Show or list the webhook queue, throttle it, or try a payload on the core.", no_args_is_help=True
)
db_app = typer.Typer(help="Migrate the ledger's schema, and add to the ERP's tables.", no_args_is_help=True)
sync_app = typer.Typer(help="Bring the tables up to date from Zoho, without webhooks.", no_args_is_help=True)
notify_app = typer.Typer(help="Send what people should hear of, list it, and test the addresses.")
workers_app = typer.Typer(help="Show which workers live, or restart them.")
pr_app = typer.Typer(
    help="The pull request that brings a commit onto the environment's branch.", no_args_is_help=True
)
app.add_typer(pr_app, name="pr")
app.add_typer(queue_app, name="queue")
app.add_typer(workers_app, name="workers")
app.add_typer(notify_app, name="notify")
app.add_typer(sync_app, name="sync")
app.add_typer(db_app, name="db")
