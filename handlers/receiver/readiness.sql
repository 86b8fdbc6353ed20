-- can_receive --
-- Whether the database answers and has what a receiver writes to.
SELECT to_regclass('tds_inbox_events') IS NOT NULL AND to_regclass('tds_sync_queue') IS NOT NULL AS can_receive;
