"""The Prefect flows and the command line: the order of phases, the branches, the loops and the waiting."""
