"""The metrics for Prometheus: their names, and how they are made of a reading."""
