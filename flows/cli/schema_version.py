"""The version of what --json prints."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""Raise it when a field of docs/json.md is removed or renamed, or gets another type, unit or meaning. A new field does
not count."""
