-- redundant_indexes --
-- Indexes of the queue whose columns are the first columns of another index. Each costs a write for every event, and
-- helps no query that the longer index does not.
WITH indexes AS (
    -- The keys are read as text: an int2vector counts from 0, and so equals no array slice.
    SELECT i.indexrelid AS id, c.relname AS name, string_to_array(i.indkey::text, ' ') AS keys,
           i.indisunique AS is_unique, pg_relation_size(i.indexrelid) AS bytes, coalesce(s.idx_scan, 0) AS scans,
           (SELECT string_agg(a.attname, ', ' ORDER BY k.position)
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS columns
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid
    -- Partial and expression indexes are never named, and unique ones only as the longer index.
    WHERE i.indrelid = to_regclass('tds_sync_queue') AND i.indpred IS NULL AND i.indexprs IS NULL
)
SELECT short.name, short.columns, short.bytes, short.scans, min(long.name) AS covered_by
FROM indexes short
JOIN indexes long ON long.id <> short.id
    AND long.keys[1:cardinality(short.keys)] = short.keys
    AND (cardinality(long.keys) > cardinality(short.keys) OR long.is_unique OR long.id < short.id)
WHERE NOT short.is_unique
GROUP BY short.name, short.columns, short.bytes, short.scans
ORDER BY short.name;

-- missing_indexes --
-- Indexes of `runbook db adopt` that the queue lacks, where workers of ours claim from it.
SELECT wanted.name
FROM (VALUES ('ix_tds_sync_queue_pending'), ('ix_tds_sync_queue_retries')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = to_regclass(wanted.name) AND i.indisvalid)
  AND EXISTS (SELECT FROM runbook.worker);

-- stuck --
-- Events that a worker began and none will finish: in processing without a lease, or with an expired one.
SELECT count(*) AS events, min(started_at) AS oldest
FROM tds_sync_queue
WHERE status = 'processing' AND (lock_expires_at IS NULL OR lock_expires_at <= now())
HAVING count(*) > 0;

-- left_in_hand --
-- Events of a worker that was killed, which no other worker has taken back: nobody holds the lock of their batch.
SELECT sum(cardinality(h.ids)) AS events, min(h.since) AS oldest
FROM runbook.in_hand h
WHERE h.since < now() - interval '1 minute'
  AND NOT EXISTS (
      SELECT FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND (l.classid::bigint << 32) | l.objid::bigint = h.batch
  )
HAVING count(*) > 0;

-- side_by_side --
-- Whether other workers still settle events of the last day while `runbook worker` does.
SELECT events.theirs, events.ours, events.last_came
FROM (
    SELECT count(*) FILTER (WHERE e.worker IS NULL) AS theirs, count(e.worker) AS ours,
        max(e.created_at) FILTER (WHERE e.worker IS NULL) AS last_came,
        min(e.started_at) FILTER (WHERE e.worker IS NOT NULL) AS ours_began
    FROM (
        -- Our workers write their name into the result, the ERP's own do not.
        SELECT q.created_at, q.started_at, q.processing_result ->> 'worker' AS worker
        FROM tds_sync_queue q
        WHERE q.created_at > now() - interval '1 day'
          AND q.status IN ('completed', 'retry', 'dead_letter')
          -- Events that our housekeeping buried or took back name no worker either.
          AND coalesce(q.error_code, '') NOT IN ('unknown_type', 'lease_expired')
    ) e
) events
-- Before our workers began, the others had to do the work.
WHERE events.theirs > 0 AND events.last_came > events.ours_began;

-- other_clock --
-- Events of the last day with times of another time zone: other workers wrote them as local times without a zone.
SELECT count(*) AS events
FROM tds_sync_queue q
WHERE q.created_at > now() - interval '1 day'
  AND q.processing_result ->> 'worker' IS NULL
  -- Finished or leased before it came in, or leased for hours.
  AND (q.completed_at < q.created_at - interval '1 minute'
       OR q.lock_expires_at < q.created_at - interval '1 minute'
       OR (q.lock_expires_at > now() + interval '1 hour' AND q.status <> 'processing'))
HAVING count(*) > 0;

-- silent_workers --
-- Workers that did not stop properly and have sent no heartbeat for two minutes.
SELECT owner, revision, beat_at FROM runbook.worker
WHERE stopped_at IS NULL AND beat_at < now() - interval '2 minutes'
ORDER BY beat_at
LIMIT 50;
