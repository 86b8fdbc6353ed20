"""A release and the record of what was done: phases, plan, lock, ledger."""
