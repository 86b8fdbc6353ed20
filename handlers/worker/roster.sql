-- is_there --
-- Whether workers send heartbeats here.
SELECT coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false) AS there
FROM (SELECT) one
LEFT JOIN pg_namespace n ON n.nspname = 'runbook'
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'worker';

-- workers --
-- The workers that gave a sign since :since, with what each has in hand, those that beat last first.
SELECT w.owner, w.host, w.pid, w.revision, w.started_at, w.beat_at, w.stopped_at, w.applied, w.failed,
    extract(epoch FROM clock_timestamp() - w.beat_at)::float8 AS silent_seconds,
    coalesce(held.events, 0) AS held, coalesce(leased.events, 0) AS leased
FROM runbook.worker w
LEFT JOIN (
    SELECT h.owner, sum(cardinality(h.ids))::bigint AS events FROM runbook.in_hand h GROUP BY h.owner
) held ON held.owner = w.owner
LEFT JOIN (
    SELECT q.locked_by, count(*) AS events FROM tds_sync_queue q
    WHERE q.status = 'processing' AND q.lock_expires_at > clock_timestamp()
    GROUP BY q.locked_by
) leased ON leased.locked_by = w.owner
WHERE w.beat_at >= CAST(:since AS timestamptz)
ORDER BY w.host, w.stopped_at IS NOT NULL, w.beat_at DESC, w.owner
LIMIT 1000;

-- begun --
-- The workers that began at :since or later, and still live.
SELECT w.owner, w.host, w.pid, w.revision FROM runbook.worker w
WHERE w.started_at >= CAST(:since AS timestamptz) AND w.stopped_at IS NULL
ORDER BY w.owner;
