"""Alembic's entry: runs the steps in the transaction that `handlers.database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from handlers.database.migrate import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], **VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
