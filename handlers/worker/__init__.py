"""The worker that a deployed ERP runs: claims batches, applies them, isolates what fails."""
