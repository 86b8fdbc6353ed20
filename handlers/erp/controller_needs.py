"""What the controller does with which table, for the check of its privileges."""

from __future__ import annotations

from handlers.database.privileges import Need

_LEDGER = (
    "release phase_record operation release_event batch judgement lock takeover quarantine file worker request "
    "guard guard_check approval freeze_override heal heal_action heal_event heal_stop"
)

QUEUE_NEED = Need(table="tds_sync_queue", privileges="SELECT INSERT UPDATE")
"""Dead letters go back to pending, and synthetic events go in."""
CONTROLLER_NEEDS = (
    QUEUE_NEED,
    Need(table="tds_inbox_events", privileges="SELECT INSERT"),
    # Only our own worker writes it, and not every ERP has it.
    Need(table="tds_dead_letter_queue", privileges="SELECT UPDATE", optional=True),
    # Before `runbook db upgrade` there are none.
    *(
        Need(table=f"runbook.{name}", privileges="SELECT INSERT UPDATE", optional=True)
        for name in _LEDGER.split()
    ),
    Need(table="runbook.intake", privileges="SELECT INSERT UPDATE DELETE", optional=True),
)
