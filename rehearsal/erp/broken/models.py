# mypy: ignore-errors
"""The queue's table, as the application's ORM knows it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Enum, Integer, String, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_TIME = DateTime(timezone=True)


class Base(DeclarativeBase):
    pass


class SyncQueue(Base):
    """One webhook waiting for its turn."""

    __tablename__ = "tds_sync_queue"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    entity_type: Mapped[str] = mapped_column(
        Enum(
            *("product", "customer", "invoice", "bill", "credit_note", "stock_adjustment", "price_list"),
            *("branch", "order", "USER", "PAYMENT", "VENDOR", "SUPPLIER"),
            name="tds_entity_type",
            create_type=False,
        )
    )
    source_entity_id: Mapped[str] = mapped_column(Text)
    validated_payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(
        Enum(
            *("pending", "processing", "completed", "failed", "retry", "dead_letter"),
            name="tds_event_status",
            create_type=False,
        )
    )
    attempt_count: Mapped[int] = mapped_column(Integer)
    max_retry_attempts: Mapped[int] = mapped_column(Integer)
    next_retry_at: Mapped[datetime | None] = mapped_column(_TIME)
    locked_by: Mapped[str | None] = mapped_column(Text)
    lock_expires_at: Mapped[datetime | None] = mapped_column(_TIME)
    created_at: Mapped[datetime] = mapped_column(_TIME)
    started_at: Mapped[datetime | None] = mapped_column(_TIME)
    completed_at: Mapped[datetime | None] = mapped_column(_TIME)
    target_entity_id: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(50))
