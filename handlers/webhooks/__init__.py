"""The pipeline being healed: events, the queue they wait in, and the worker that applies them."""
