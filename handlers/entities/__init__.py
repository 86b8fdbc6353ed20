"""The eleven kinds of record as rows of the ERP: declared in kinds, and read, folded and written here."""
