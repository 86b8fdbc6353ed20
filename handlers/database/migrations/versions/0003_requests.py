"""What people ask of a running release, and the process that holds a lock."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0003_requests"
down_revision = "0002_intake"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of requests, and let a lock name its process."""
    execute_file("0003_requests.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
