"""Telling people what happens to releases: the outbox of the ledger is sent to the addresses of an environment."""
