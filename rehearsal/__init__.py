"""A whole target that one can break: hosts, database, queue and a sample ERP, all on loopback."""
