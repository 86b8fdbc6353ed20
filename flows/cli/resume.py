"""The command `runbook resume`. A timer calls `resume --due` each minute: it loads little where nothing is due."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import app
from flows.cli.options import (
    ByOption,
    OptionalEnvironmentOption,
    ReasonOption,
    ReleaseOption,
    RunOptions,
    TakeOverOption,
    UseFileOption,
    expand_options,
)
from handlers.errors import Refused


@app.command()
@expand_options
def resume(
    environment: OptionalEnvironmentOption = None,
    *,
    is_due: Annotated[
        bool,
        typer.Option(
            "--due",
            help="Continue what nobody carries and what needs no person: in one environment, or in all. For a timer.",
        ),
    ] = False,
    release: ReleaseOption = None,
    by: ByOption = "",
    reason: ReasonOption = "",
    take_over: TakeOverOption = "",
    use_file: UseFileOption = False,
    run_options: RunOptions,
) -> int:
    """Continue a release that is held, or whose controller died, from the phase in the ledger."""
    if is_due:
        if take_over or by or reason or use_file or release:
            raise Refused(
                "--due decides by itself: leave out --release, --take-over, --use-file, --by and --reason"
            )
        from flows.cli.resume_due import carry_on

        return carry_on(environment, run_options)
    if not environment:
        raise Refused("name the environment with --environment, or RUNBOOK_ENVIRONMENT")
    from flows.cli.decide import continue_release

    return continue_release(
        environment,
        release,
        by=by,
        reason=reason,
        take_over=take_over,
        use_file=use_file,
        run_options=run_options,
    )
