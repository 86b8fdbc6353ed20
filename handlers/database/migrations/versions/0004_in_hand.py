"""The batches that workers apply at this moment."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0004_in_hand"
down_revision = "0003_requests"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of batches in hand."""
    execute_file("0004_in_hand.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
