"""The command line: the other door into the same flows."""

from __future__ import annotations

import sys

from typer.main import get_command

from flows.cli.app import app
from flows.cli.output import fail, wants_json
from handlers.errors import ExitCode, RunbookError


def main() -> None:
    """Run a command; every error that we know ends as one sentence and its exit code."""
    _register()
    command = get_command(app)
    try:
        status = command.main(standalone_mode=False)
    except RunbookError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # Not a mistake: whoever types the bare name asks what there is.
            sys.stdout.write(f"{error}\n")
            sys.exit(0)
        # A question that got "no", or nobody to answer it.
        stopped = "not confirmed, nothing was begun: say yes, or use --yes"
        known = stopped if type(error).__name__ == "Abort" else _click_error(error)
        if known is not None:
            fail(known, ExitCode.REFUSED)
        if wants_json():
            fail(f"{type(error).__name__}: {error}", ExitCode.OWN_ERROR)
        raise
    sys.exit(status if isinstance(status, int) else 0)


def _register() -> None:
    """Import the commands. A worker imports its own alone: each restart of the ERP waits for it.

    So does a trial: it is called for one payload after the other.
    """
    if sys.argv[1:3] == ["queue", "try"]:
        from flows.cli import try_

        return
    from flows.cli import serve  # noqa: F401

    if sys.argv[1:2] != ["worker"]:
        from flows.cli import db, decide, queue, rehearse, release, status, try_  # noqa: F401


def _click_error(error: Exception) -> str | None:
    """Wrong usage (unknown option, missing argument), said in one sentence instead of a traceback."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    return f"{message()}{hint}"
