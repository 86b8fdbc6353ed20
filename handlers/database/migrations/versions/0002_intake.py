"""Limits on how many events workers may take, so that waiting out a doubt costs few of them."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0002_intake"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of limits."""
    execute_file("0002_intake.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
