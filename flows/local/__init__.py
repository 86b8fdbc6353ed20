"""The local Prefect server and worker, their processes, and the rehearsal."""
