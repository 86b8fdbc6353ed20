"""Starting the process that carries a release out, and showing how it stands until it ends."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncEngine

from flows.local.state import STATE
from handlers.errors import DatabaseDown, ExitCode, Refused, RunbookError
from handlers.release.phase import FINISHED, Phase
from handlers.status import snapshot
from handlers.status.lines import lines
from handlers.status.view import StatusView

LOOK_SECONDS = 0.5
_PREFIX = re.compile(r"^[0-9-]+ [0-9:,]+ [A-Z]+ [\w.]+: ")
STYLES = {
    "[done]": "green",
    "[running]": "bold cyan",
    "[failed]": "bold red",
    "[held]": "bold yellow",
    "[armed]": "dim",
    "[next]": "dim",
    "[later]": "dim",
}


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The process that carries out; it has a session of its own, so that a closed terminal does not end it."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def refused(self) -> bool:
        """Whether it ended because it may not: another controller has the lock, or there is nothing to do."""
        return self.process.poll() == ExitCode.REFUSED

    def last_words(self) -> str:
        """The last line of its log without time and level, for an error."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return _PREFIX.sub("", lines[-1]) if lines else "it said nothing"


def start(verb: str, environment: str, release: str, *options: str) -> Driver:
    """Start the driver, detached, with its output in a log of its own."""
    folder = STATE / "drivers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / f"{release}-{os.getpid()}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.driver", verb, environment, release, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Driver(process=process, log=log)


async def follow(
    engine: AsyncEngine,
    environment: str,
    release: str,
    *,
    driver: Driver | None,
    out: Console | None,
    until: frozenset[Phase] = FINISHED | {Phase.HELD},
) -> StatusView:
    """Show the release until its driver has ended, or without one until it has come to its end.

    On a terminal the view is redrawn in place; elsewhere each finished step is one line. *out* None shows nothing.
    Ctrl-C leaves the release to its driver.
    """
    screen = _Screen(out)
    with screen:
        while True:
            view = await _look(engine, environment, release)
            if view is not None:
                screen.show(view)
            if driver is not None and driver.ended():
                break
            at_end = view is not None and view.release is not None and view.release.phase in until
            if driver is None and at_end:
                break
            await asyncio.sleep(LOOK_SECONDS)
        last = await snapshot.read(engine, environment, release)
        screen.show(last)
    if driver is not None and last.release is not None:
        if driver.refused():
            # It never came to change anything: what the ledger says is somebody else's doing.
            raise Refused(driver.last_words())
        if last.release.phase not in until:
            raise RunbookError(
                f"the process that carries out {release} ended in phase {last.release.phase}: "
                f"{driver.last_words()}; see {driver.log}, then `runbook resume`"
            )
    return last


async def _look(engine: AsyncEngine, environment: str, release: str) -> StatusView | None:
    try:
        return await snapshot.read(engine, environment, release)
    except DatabaseDown:
        # The release's own process decides what that means; the view only waits for it to come back.
        return None


class _Screen:
    """A redrawn view on a terminal, or one line for each thing that happened."""

    def __init__(self, out: Console | None) -> None:
        self._out = out
        self._live = Live(console=out, auto_refresh=False) if out is not None and out.is_terminal else None
        self._told: set[tuple[str, str, str]] = set()

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, view: StatusView) -> None:
        """Show how it stands now."""
        if self._live is not None:
            size = self._live.console.size
            # One line less than there are: the cursor stands below the last.
            self._live.update(painted(view, min(80, size.width), size.height - 1), refresh=True)
        elif self._out is not None:
            self._tell(self._out, view)

    def _tell(self, out: Console, view: StatusView) -> None:
        for step in view.steps:
            news = (step.name, str(step.state), step.sentence)
            if step.at is None or news in self._told or (step.state == "running" and not step.sentence):
                continue
            self._told.add(news)
            # A running step tells the time of this look, a finished one that of its end.
            at = view.at if step.state == "running" else step.at
            out.print(f"{at:%H:%M:%S} {step.name} {step.state}: {step.sentence}")


def painted(view: StatusView, width: int = 80, height: int | None = None) -> Text:
    """The plain lines of the view, coloured by what each step has come to, in as many lines as there are."""
    text = Text()
    for line in lines(view, width, height):
        style = next((style for mark, style in STYLES.items() if line.lstrip().startswith(mark)), "")
        text.append(line + "\n", style=style)
    return text
