"""What people are told, and what came of it."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0009_outbox"
down_revision = "0008_guard"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    execute_file("0009_outbox.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
