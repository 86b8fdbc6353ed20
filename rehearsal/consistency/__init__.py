"""Whether hosts, ledger and queue agree after a release: read from each of them, with queries and words of its own."""
