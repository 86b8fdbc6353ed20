"""The ERP's queue, `tds_sync_queue`: one operation in each file, next to its SQL."""
