"""The ledger's migrations: a package, so that they travel with an installed runbook."""
