-- redundant_indexes --
-- Plain indexes of the queue whose columns are the beginning of another's: each costs a write for every event and
-- helps no query that the longer one does not. Unique, partial and expression indexes are never named.
WITH indexes AS (
    SELECT i.indexrelid AS id, c.relname AS name, i.indkey::int2[] AS keys, i.indisunique AS is_unique,
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
    AND long.keys[0:cardinality(short.keys) - 1] = short.keys
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

-- silent_workers --
-- Workers that neither said farewell nor gave a sign of life in the last minutes.
SELECT owner, revision, beat_at FROM runbook.worker
WHERE stopped_at IS NULL AND beat_at < now() - interval '2 minutes'
ORDER BY beat_at
LIMIT 50;
