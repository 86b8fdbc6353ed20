"""What is written about a release: the verification report and the evidence."""
