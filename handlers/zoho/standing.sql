-- standing --
-- The newest sync of each kind, whether a process carries it, and when one of its kind ended well.
SELECT DISTINCT ON (r.kind) r.kind, r.state, r.sentence, r.started_at, r.beat_at,
    EXISTS (SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.objsubid = 1
              AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
              AND (l.classid::bigint << 32) | l.objid::bigint = n.number) AS is_carried,
    (SELECT max(o.ended_at) FROM runbook.sync_run o
     WHERE o.environment = r.environment AND o.kind = r.kind AND o.state = 'done') AS done_at
FROM runbook.sync_run r
JOIN unnest(CAST(:kinds AS text[]), CAST(:numbers AS bigint[])) AS n (kind, number) ON n.kind = r.kind
WHERE r.environment = :environment
ORDER BY r.kind, r.started_at DESC, r.id DESC;

-- calls --
-- The calls of the source's API today (UTC).
SELECT coalesce(sum(d.calls), 0)::bigint AS calls
FROM runbook.sync_day d
WHERE d.environment = :environment AND d.day = CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date);
