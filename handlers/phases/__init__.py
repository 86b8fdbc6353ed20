"""What each phase of a release does: one file for each phase, named like in flows and tasks."""
