-- workers --
-- The workers of the last day: alive, or silent though they did not stop properly.
SELECT count(*) AS running,
    count(*) FILTER (WHERE w.beat_at >= clock_timestamp() - interval '15 seconds') AS alive,
    count(*) FILTER (WHERE w.beat_at < clock_timestamp() - interval '2 minutes') AS silent,
    (array_agg(w.owner ORDER BY w.beat_at DESC) FILTER (WHERE w.beat_at < clock_timestamp() - interval '2 minutes'))[1]
        AS newest_silent,
    (SELECT count(*) FROM runbook.worker) AS known
FROM runbook.worker w
WHERE w.stopped_at IS NULL AND w.beat_at >= clock_timestamp() - interval '1 day';
