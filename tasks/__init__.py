"""One retryable step each: a name, a timeout and a patience around one call of the core."""
