# mypy: ignore-errors
"""The workers of the sync queue: the sync core does the work, this process looks after it."""

import os
import signal
import subprocess
import sys

import beat
from core import OWNER, limits
from revision import REVISION


def main() -> int:
    """Run the core's worker, pass SIGTERM on to it, and end as it ends."""
    words = ["--database-url", "env:ERP_DATABASE_URL", "--owner", OWNER, "--revision", REVISION]
    for name, seconds in limits().items():
        words += [f"--{name.replace('_', '-')}", str(seconds)]
    worker = subprocess.Popen(["runbook", "worker", *words], env=os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.terminate())
    beat.start(OWNER)
    try:
        return worker.wait()
    finally:
        beat.stop()


if __name__ == "__main__":
    sys.exit(main())
