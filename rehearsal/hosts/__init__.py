"""The rehearsal's hosts: an SSH server, a service manager and supervised units, all as the ordinary user."""
