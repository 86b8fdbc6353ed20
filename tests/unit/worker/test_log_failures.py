"""What a worker logs of events that it could not apply."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from handlers.queue.event import ErrorClass
from handlers.queue.settle import Failure
from handlers.worker.isolate import log_failures


def failure(error_class: ErrorClass, message: str = "invalid date 2026-13-01 of Ahmad") -> Failure:
    return Failure(id=uuid4(), error_class=error_class, code="refused", message=message)


@pytest.mark.parametrize(
    ("error_class", "level"),
    [
        (ErrorClass.PERMANENT, logging.ERROR),
        (ErrorClass.TRANSIENT, logging.WARNING),
        (ErrorClass.MISSING_PARENT, logging.WARNING),
    ],
)
def test_what_becomes_a_dead_letter_at_once_is_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture, error_class: ErrorClass, level: int
) -> None:
    """The gate and the report look for errors in the logs. What a retry may cure is none."""
    log_failures([failure(error_class)])
    assert [record.levelno for record in caplog.records] == [level]


def test_a_kind_of_failure_is_one_line_without_values(caplog: pytest.LogCaptureFixture) -> None:
    """Payloads hold customer data, and a thousand lines hide the next kind."""
    log_failures([failure(ErrorClass.PERMANENT, f"invalid date 2026-13-{day:02}") for day in range(1, 30)])
    [record] = caplog.records
    assert record.getMessage().startswith("29 events not applied, ")
    assert "2026" not in record.getMessage()
