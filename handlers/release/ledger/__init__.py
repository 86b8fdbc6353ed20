"""The ledger: the record of every release, in the schema `runbook` of the environment's database.

Every function takes an engine and opens its own transaction, or takes a connection and joins the caller's.
One transaction for one fact: after a kill at any point, the release can continue from the stored state.
"""
