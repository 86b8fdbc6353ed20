"""The API of the source (Zoho), and the syncs that read it."""
