"""What one starts in staging from the Prefect page: no run of these can go to another environment."""

from __future__ import annotations

from flows import approve as approve_flow
from flows import by_command, by_hand
from flows import release as release_flow
from flows import resume as resume_flow
from flows import rollback as rollback_flow
from flows import sync as sync_flow
from flows.forms import fixed

_HERE = "staging"

release = fixed(release_flow.release, _HERE)
plan = fixed(by_hand.plan, _HERE)
canary = fixed(by_hand.canary, _HERE)
drain = fixed(by_hand.drain, _HERE)
watch = fixed(by_hand.watch, _HERE)
verify = fixed(by_hand.verify, _HERE)
approve = fixed(approve_flow.approve, _HERE)
rollback = fixed(rollback_flow.rollback, _HERE)
resume = fixed(resume_flow.resume, _HERE)
hold = fixed(by_command.hold, _HERE)
skip = fixed(by_command.skip, _HERE)
abort = fixed(by_command.abort, _HERE)
guard = fixed(by_command.guard, _HERE)
heal = fixed(by_command.heal_now, _HERE)
sync = fixed(sync_flow.sync, _HERE)
