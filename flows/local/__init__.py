"""The local Prefect: its server, its worker and the processes that they run in."""
