-- redundant_indexes --
-- Plain indexes of the queue whose columns are the beginning of another's: each costs a write for every event and
-- helps no query that the longer one does not. Unique, partial and expression indexes are never named. The keys are taken
-- from text: the vector that they are counts from 0, and equals no slice, which counts from 1.
WITH indexes AS (
    SELECT i.indexrelid AS id, c.relname AS name, string_to_array(i.indkey::text, ' ') AS keys, i.indisunique AS is_unique,
           pg_relation_size(i.indexrelid) AS bytes, coalesce(s.idx_scan, 0) AS scans,
           (SELECT string_agg(a.attname, ', ' ORDER BY k.position)
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS columns
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid
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

-- stuck --
-- Events that a worker began and nobody will finish: in processing with no lease, or with one that has run out.
SELECT count(*) AS events, min(started_at) AS oldest
FROM tds_sync_queue
WHERE status = 'processing' AND (lock_expires_at IS NULL OR lock_expires_at <= now())
HAVING count(*) > 0;

-- side_by_side --
-- Whether other workers still settle what comes in while `runbook worker` does: ours say in an event's result who they are,
-- and the others nothing. What our housekeeping buried or took back names nobody either. Only the last day is looked at,
-- and only what came in after ours had begun.
SELECT events.theirs, events.ours, events.last_came
FROM (
    SELECT count(*) FILTER (WHERE e.worker IS NULL) AS theirs, count(e.worker) AS ours,
        max(e.created_at) FILTER (WHERE e.worker IS NULL) AS last_came,
        min(e.started_at) FILTER (WHERE e.worker IS NOT NULL) AS ours_began
    FROM (
        SELECT q.created_at, q.started_at, q.processing_result ->> 'worker' AS worker
        FROM tds_sync_queue q
        WHERE q.created_at > now() - interval '1 day'
          AND q.status IN ('completed', 'retry', 'dead_letter')
          AND coalesce(q.error_code, '') NOT IN ('unknown_type', 'lease_expired')
    ) e
) events
WHERE events.theirs > 0 AND events.last_came > events.ours_began;

-- other_clock --
-- Events of the last day that other workers have finished before they came in, or leased until hours from now: times without
-- a zone, written where it is not UTC.
SELECT count(*) AS events
FROM tds_sync_queue q
WHERE q.created_at > now() - interval '1 day'
  AND q.processing_result ->> 'worker' IS NULL
  AND (q.completed_at < q.created_at - interval '1 minute'
       OR q.lock_expires_at < q.created_at - interval '1 minute'
       OR (q.lock_expires_at > now() + interval '1 hour' AND q.status <> 'processing'))
HAVING count(*) > 0;

-- silent_workers --
-- Workers that neither said farewell nor gave a sign of life in the last minutes.
SELECT owner, revision, beat_at FROM runbook.worker
WHERE stopped_at IS NULL AND beat_at < now() - interval '2 minutes'
ORDER BY beat_at
LIMIT 50;
