"""`python -m flows.cli` is `runbook`."""

from flows.cli import main

main()
