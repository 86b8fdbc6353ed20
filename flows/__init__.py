"""What a person or a schedule can start: the order of phases, the branches, the loops and the waiting."""
