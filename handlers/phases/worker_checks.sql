-- live --
-- The workers with a heartbeat in the last 15 seconds: each beats every five. The lock of one that was killed is free.
SELECT owner, host, revision, beat_at,
    NOT pg_try_advisory_xact_lock_shared(hashtextextended(owner, 0)) AS locked
FROM runbook.worker
WHERE stopped_at IS NULL AND beat_at > clock_timestamp() - interval '15 seconds'
ORDER BY owner;
