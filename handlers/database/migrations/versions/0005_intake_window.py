"""The time over which a limit counts: ten seconds, and less where time runs faster."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0005_intake_window"
down_revision = "0004_in_hand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a limit say over which time it counts."""
    execute_file("0005_intake_window.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
