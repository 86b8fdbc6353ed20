"""Who approved or rejected a plan, and who let a release start in a freeze."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0010_approval"
down_revision = "0009_outbox"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    execute_file("0010_approval.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
