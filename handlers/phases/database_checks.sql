-- failed --
-- Events in status failed, newest first. A person decides about these: nothing redrives them automatically.
SELECT entity_type::text AS raw_type, error_code, error_message
FROM tds_sync_queue WHERE status = 'failed'
ORDER BY created_at DESC
-- Bounded, because they are only counted by kind.
LIMIT 10000;

-- intake --
-- The age of the newest event, and the usual pause between two: of the last 200, nineteen in twenty were shorter.
SELECT extract(epoch FROM clock_timestamp() - max(created_at))::float8 AS newest_seconds,
    extract(epoch FROM percentile_cont(0.95) WITHIN GROUP (ORDER BY pause))::float8 AS usual_seconds,
    count(pause) AS pauses
FROM (
    SELECT created_at, created_at - lag(created_at) OVER (ORDER BY created_at) AS pause
    FROM (SELECT created_at FROM tds_sync_queue ORDER BY created_at DESC LIMIT 200) newest
) arrivals;

-- may_keep_a_ledger --
-- Whether this user can create our schema, or has it already.
SELECT has_database_privilege(current_database(), 'CREATE')
    OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'runbook' AND has_schema_privilege(oid, 'CREATE'));
