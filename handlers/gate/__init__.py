"""The gate: measurements in, judgements out. Pure: no clock, no database, no configuration."""
