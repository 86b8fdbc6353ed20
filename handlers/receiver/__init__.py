"""The door for Zoho's webhooks: what comes in is verified, read, and answered only once it is written down.

`serve` runs it, `application` builds it. It knows the queue and the entities, and nothing of releases.
"""
