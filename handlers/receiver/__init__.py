"""The HTTP endpoint for Zoho's webhooks. It verifies and parses a call, and answers after the commit.

`serve` runs it, `application` builds it. It uses the queue and the entities, and knows nothing of releases.
"""
