"""Target hosts: the SSH connection, the commands, the detached operations, and reading a host's state."""
