"""The ERP's queue, `tds_sync_queue`: one verb a file, each beside its statements."""
