"""The ERP's database: adding columns and indexes to it, finding problems in it, trying payloads on it."""
