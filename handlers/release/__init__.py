"""A release and its record: phases, plan, lock, ledger."""
