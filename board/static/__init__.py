"""Style and script of the page."""
