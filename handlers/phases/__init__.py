"""What each phase of a release does: one file a phase, under the same word as in flows and tasks."""
