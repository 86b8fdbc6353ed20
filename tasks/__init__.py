"""The steps of a release: a name, a timeout and retries around one call of the handlers."""
