"""The rule of each judgement."""

from __future__ import annotations

from handlers.database.migrate import execute_file

revision = "0006_judgement_rule"
down_revision = "0005_intake_window"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    execute_file("0006_judgement_rule.sql")


def downgrade() -> None:
    """Refuse: the ledger is the record of what was done and is never thrown away by a program."""
    raise NotImplementedError("the ledger is never taken back: restore the database instead")
