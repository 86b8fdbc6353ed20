"""What a command costs before and while it answers: processor time of the whole process, beside a bare Python.

    python bench/commands.py

Prints the table and keeps it in docs/performance.md. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _load
from _place import open_place
from sqlalchemy.ext.asyncio import create_async_engine

from handlers.database import migrate
from handlers.gate.values import Thresholds
from handlers.release.ledger import releases
from handlers.release.planned import EVERYTHING, Plan

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the last run of bench/commands.py -->", "<!-- end of the run of bench/commands.py -->"
RUNS = 5
COMMANDS = {
    "--help": 0.3,
    "--version": 0.3,
    "status": 0.6,
    "history": 0.6,
    "queue show": None,
    "resume --due": None,
    "guard --due": None,
}
"""Each command, and the most that it should take, in seconds of the processor."""
_FILE = """
name = "bench"
database.url = "{url}"
ssh = {{user = "deploy", key_file = "~/.ssh/key", known_hosts_file = "/etc/known_hosts"}}
hosts = [{{name = "web-1", address = "127.0.0.1", health_url = "http://127.0.0.1:1/health"}}]
deploy.directory = "/srv/erp"
services.web = ["tsh-erp"]
"""


def cost(*command: str) -> float:
    """Processor seconds of one process, the middle of some runs."""
    seconds = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


async def with_a_release(url: str) -> None:
    """A ledger with one planned release."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    await migrate.upgrade(engine)
    plan = Plan(
        environment="bench",
        requested="b" * 40,
        from_revision="a" * 40,
        to_revision="b" * 40,
        scope=EVERYTHING,
        commits=(),
        hosts=(),
        events=(),
        set_aside={},
        queue={},
        failed={},
        checks=(),
        thresholds=Thresholds(),
        baseline=None,
        seconds_expected=1,
    )
    await releases.begin(engine, plan=plan, requested_by="bench")
    await engine.dispose()


async def main() -> None:
    """Measure, print, and keep the table."""
    with open_place() as place, tempfile.TemporaryDirectory() as folder:
        await _load.prepare(place, "base")
        url = place.server.url("base")
        await with_a_release(url)
        file = Path(folder) / "bench.toml"
        file.write_text(_FILE.format(url=url), encoding="utf-8")
        runbook = str(Path(sys.executable).with_name("runbook"))
        bare = cost(sys.executable, "-c", "pass")
        taken = {
            command: cost(runbook, *command.split(), *([] if command.startswith("--") else ["-e", str(file)]))
            for command in COMMANDS
        }
    lines = ["| command | processor seconds | times a bare Python | at most |", "|---|---|---|---|"]
    for command, limit in COMMANDS.items():
        most = "–" if limit is None else f"{limit:g} s, {'met' if taken[command] <= limit else '**short**'}"
        lines.append(f"| `runbook {command}` | {taken[command]:.2f} | {taken[command] / bare:.0f} | {most} |")
    text = "\n".join(lines)
    print(text)
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    PAGE.write_text(f"{head}{_BEGIN}\n\n{text}\n\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
