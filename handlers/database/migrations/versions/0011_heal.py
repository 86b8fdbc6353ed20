"""Healing: its runs, what it has done, the letters that it has tried, and what it leaves alone."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0011_heal"
down_revision = "0010_approval"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    execute_file("0011_heal.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
