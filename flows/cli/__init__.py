"""The command line. Its commands run the same flows as the Prefect page."""

from __future__ import annotations

import sys

from typer.main import get_command

from flows.cli.app import app
from flows.cli.output import fail, wants_json
from handlers.errors import ExitCode, RunbookError
from handlers.process import import_without_collecting


def main() -> None:
    """Run a command; a known error prints one sentence and ends with its exit code."""
    import_without_collecting()
    command = get_command(app)
    try:
        status = command.main(standalone_mode=False)
    except RunbookError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # A bare command name asks for its help, so this is no error.
            sys.stdout.write(f"{error}\n")
            sys.exit(0)
        # A confirmation that was declined, or that had no terminal to answer it.
        unconfirmed = "not confirmed; nothing was started. Answer yes, or use --yes."
        message = unconfirmed if type(error).__name__ == "Abort" else _click_error(error)
        if message is not None:
            fail(message, ExitCode.REFUSED)
        if wants_json():
            fail(f"{type(error).__name__}: {error}", ExitCode.OWN_ERROR)
        raise
    sys.exit(status if isinstance(status, int) else 0)


def _click_error(error: Exception) -> str | None:
    """The message for wrong usage (unknown option, missing argument); None for any other error."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    return f"{message()}{hint}"
