"""The status of a release, for people."""
