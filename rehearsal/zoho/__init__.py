"""A stand-in for the source's API (Zoho): its lists, its records, its errors and its limits, over real HTTP."""
