"""Start the driver process of a release, and show the state of the release until it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.cli.progress import Progress, away_line
from flows.driver_log import read_end
from handlers.errors import LEDGER_AWAY, ExitCode, Refused, RunbookError
from handlers.release.phase import FINISHED, Phase
from handlers.state_folder import STATE, private_folder
from handlers.status import snapshot
from handlers.status.lines import lines
from handlers.status.view import StatusView

POLL_SECONDS = 0.5
STYLES = {
    "[done]": "green",
    "[running]": "bold cyan",
    "[failed]": "bold red",
    "[held]": "bold yellow",
    "[armed]": "dim",
    "[next]": "dim",
    "[later]": "dim",
}

_MARK = re.compile(r" {1,3}(?:[^\[]{1,26} )?(\[[a-z]+\])")
"""The state of a phase, or of a step on a host, at its place in the line."""


class Uncarried(RunbookError):
    """The process that ran the release has ended before the release did, and no other one runs it."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The process that executes a release. It has its own session, so that a closed terminal does not end it."""

    process: subprocess.Popen[bytes]
    log: Path
    log_from: int = 0
    """The length of the log file before it began."""

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def died(self) -> bool:
        """Whether it ended before its work did: killed, or by an error of its own."""
        return self.process.poll() not in (None, ExitCode.GOOD, ExitCode.REFUSED)

    def refused(self) -> bool:
        """Whether it ended with Refused: another controller has the lock, or there is nothing to do."""
        return self.process.poll() == ExitCode.REFUSED

    def how_it_ended(self) -> str:
        """Whether a signal killed the process, for an error message."""
        status = self.process.poll() or 0
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else "ended"

    def last_line(self) -> str:
        """Why it ended, for an error message: its own error, not the last log line of a library."""
        with self.log.open("rb") as file:
            file.seek(self.log_from)
            return read_end(file.read().decode(errors="replace"), self.process.poll())


def start(verb: str, environment: str, release: str, *options: str) -> Driver:
    """Start a detached driver with its own log file."""
    log = private_folder(STATE / "drivers") / f"{release}-{os.getpid()}.log"
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        log_from = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.driver", verb, environment, release, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Driver(process=process, log=log, log_from=log_from)


async def follow(
    engine: AsyncEngine,
    environment: str,
    release: str,
    *,
    driver: Driver | None,
    out: Console | None,
    until: frozenset[Phase] = FINISHED | {Phase.HELD},
    stop_uncarried: bool = False,
) -> StatusView:
    """Show the release until its *driver* ends, or without a driver until its phase is one of *until*.

    On a terminal the view is redrawn in place; elsewhere each change is one line. With *out* None nothing is
    shown. Raises Refused when the driver was refused, and Uncarried when it ended too early. With *stop_uncarried*
    that is raised without a driver too, when nobody carries the release any more.
    """
    screen = _Screen(out)
    with screen:
        while True:
            view = await _read_view(engine, environment, release)
            if view is not None:
                screen.show(view)
            else:
                screen.show_away()
            if driver is not None and driver.ended():
                break
            reached = view is not None and view.release is not None and view.release.phase in until
            if driver is None and reached:
                break
            if driver is None and stop_uncarried and view is not None and view.carried is False:
                raise Uncarried(f"nobody runs release {release} any more: {view.care}")
            await asyncio.sleep(POLL_SECONDS)
        last_view = await snapshot.read(engine, environment, release)
        screen.show(last_view)
    if driver is not None and last_view.release is not None:
        if driver.refused():
            # It changed nothing: the phase in the ledger is the work of another controller.
            raise Refused(driver.last_line())
        if last_view.release.phase not in until:
            raise Uncarried(
                f"the process of release {release} {driver.how_it_ended()} in phase {last_view.release.phase}: "
                f"{driver.last_line()}. See {driver.log}"
            )
    return last_view


async def _read_view(engine: AsyncEngine, environment: str, release: str) -> StatusView | None:
    try:
        return await snapshot.read(engine, environment, release)
    except LEDGER_AWAY:
        # The driver decides what an outage means for the release; the view only waits until it is over.
        return None


class _Screen:
    """A view that is redrawn on a terminal; elsewhere one line for each change."""

    def __init__(self, out: Console | None) -> None:
        self._out = out
        self._live = Live(console=out, auto_refresh=False) if out is not None and out.is_terminal else None
        self._progress = Progress()
        self._shown: StatusView | None = None
        self._shown_at = monotonic()

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, view: StatusView) -> None:
        """Show the current state."""
        self._shown, self._shown_at = view, monotonic()
        self._draw(view, "")
        self._print(self._progress.lines(view))

    def show_away(self) -> None:
        """Say that the state is not known, since when, and what was known last."""
        seconds = monotonic() - self._shown_at
        if self._shown is not None:
            self._draw(self._shown, away_line(seconds))
        self._print(self._progress.away(seconds))

    def _draw(self, view: StatusView, above: str) -> None:
        if self._live is None:
            return
        size = self._live.console.size
        # One line is left for the cursor.
        height = size.height - 1 - bool(above)
        text = colored(view, min(80, size.width), height)
        self._live.update(Text(f"{above}\n", style="bold yellow") + text if above else text, refresh=True)

    def _print(self, new_lines: list[str]) -> None:
        if self._live is None and self._out is not None:
            for line in new_lines:
                self._out.print(line)


def colored(view: StatusView, width: int = 80, height: int | None = None) -> Text:
    """The lines of the view, each step in the colour of its state. *width* and *height* limit the text."""
    text = Text()
    for line in lines(view, width, height):
        mark = _MARK.match(line)
        text.append(line + "\n", style=STYLES.get(mark[1], "") if mark else "")
    return text
