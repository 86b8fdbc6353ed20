"""The files about a release: the report and the evidence."""
