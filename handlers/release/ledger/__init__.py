"""The ledger: the truth about every release, in the schema `runbook` of the environment's database.

Every function takes an engine (and is a transaction of its own) or a connection (and joins the caller's).
One transaction for one fact: a kill between any two lines leaves a state from which the release goes on.
"""
