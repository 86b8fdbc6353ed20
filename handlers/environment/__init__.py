"""The place that releases go to: its TOML file, read once and checked."""
