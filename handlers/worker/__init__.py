"""The worker that a deployed ERP runs: it claims batches, applies them and isolates bad events."""
