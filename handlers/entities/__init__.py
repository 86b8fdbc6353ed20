"""The eleven entity types as rows of the ERP: declared in `kinds`; parsed, folded and written here."""
