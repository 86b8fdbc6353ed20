-- waiting --
-- The pending events of a priority, up to a number: the index on status and priority has them side by side.
SELECT count(*) FROM (
    SELECT FROM tds_sync_queue
    WHERE status = 'pending' AND priority = CAST(:priority AS integer)
    LIMIT CAST(:at_most AS bigint)
) AS counted;
