"""The ledger: releases, phases, operations, drained events, judgements, lock, quarantine, files, workers."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of the ledger."""
    execute_file("0001_ledger.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
