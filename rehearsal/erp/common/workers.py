# mypy: ignore-errors
"""The workers of the sync queue: the sync core does the work, this process looks after it."""

import os
import signal
import subprocess
import sys

import beat
from revision import REVISION

LEASE_SECONDS = 8
"""A worker that was killed keeps its events for so long. The other limits here are short as well."""


def main() -> int:
    """Run the core's worker, pass SIGTERM on to it, and end as it ends."""
    owner = f"{os.environ.get('ERP_HOST', 'erp')}-{os.getpid()}"
    worker = subprocess.Popen(
        [
            "runbook",
            "worker",
            "--database-url",
            "env:ERP_DATABASE_URL",
            "--owner",
            owner,
            "--revision",
            REVISION,
            "--lease-seconds",
            str(LEASE_SECONDS),
        ]
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.terminate())
    beat.start()
    try:
        return worker.wait()
    finally:
        beat.stop()


if __name__ == "__main__":
    sys.exit(main())
