"""A host: how it is reached, what it is told, and what it shows."""
