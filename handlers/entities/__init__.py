"""One handler for each of the eleven kinds of record that Zoho sends."""
