"""The checks of an environment: each is a measurement with its bar, read from queue, tables, hosts and database."""
