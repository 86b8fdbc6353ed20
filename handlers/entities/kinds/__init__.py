"""The eleven kinds of record, declared: which key of the payload goes into which column."""
