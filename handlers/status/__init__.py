"""How a release stands, for people."""
