"""What a sync from the source has read."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0007_sync"
down_revision = "0006_judgement_rule"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of syncs."""
    execute_file("0007_sync.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
