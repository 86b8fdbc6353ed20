"""Faults of the world around a release, tried on the rehearsal's target: what breaks, at which moment, for how long."""
