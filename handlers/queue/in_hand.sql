-- is_there --
-- Whether batches can be noted here. Workers also run on databases with an older ledger or none, or without the right.
SELECT coalesce(
    has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'DELETE')
    -- A standby cannot read an unlogged table.
    AND NOT pg_is_in_recovery(), false) AS there
FROM (SELECT) one
LEFT JOIN pg_namespace n ON n.nspname = 'runbook'
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'in_hand';

-- begin --
-- Hold the advisory lock of :batch until the end of the transaction: it shows that the batch is in progress.
-- Until then the planner also walks an index in its order instead of sorting, as in claim.sql.
SELECT pg_advisory_xact_lock(CAST(:batch AS bigint)), set_config('enable_sort', 'off', true);

-- note --
-- Say that :owner has these events in hand. Committed before anything is done with them.
INSERT INTO runbook.in_hand (batch, owner, ids, bytes)
VALUES (CAST(:batch AS bigint), :owner, CAST(:ids AS uuid[]), CAST(:bytes AS bigint));

-- done --
-- The batch ends with its transaction.
DELETE FROM runbook.in_hand WHERE batch = CAST(:batch AS bigint);

-- forget --
-- What :owner had in hand went back when its connection was lost. Nobody was killed by it.
DELETE FROM runbook.in_hand WHERE owner = :owner;

-- left --
-- Give the events of killed workers a lease that has run out: `expire_leases` then takes them back in pieces.
WITH dead AS (
    -- Without a transaction nobody holds the lock, and who gets it here is the only one to take the batch back.
    DELETE FROM runbook.in_hand h WHERE pg_try_advisory_xact_lock(h.batch)
    RETURNING h.owner, h.ids, h.since
), free AS (
    SELECT q.id, d.owner, d.since
    FROM dead d
    CROSS JOIN LATERAL unnest(d.ids) AS noted (id)
    JOIN tds_sync_queue q ON q.id = noted.id
    WHERE q.status IN ('pending', 'retry')
      -- A server that was stopped and started since has ended the batch itself: no event did, and all are free already.
      AND d.since > pg_postmaster_start_time()
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET status = 'processing',
    locked_by = f.owner,
    lock_expires_at = now(),
    started_at = f.since,
    attempt_count = q.attempt_count + 1
FROM free f
WHERE q.id = f.id;

-- owners_are_there --
-- Whether the heartbeats of workers can be read here.
SELECT coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false) AS there
FROM (SELECT) one
LEFT JOIN pg_namespace n ON n.nspname = 'runbook'
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'worker';

-- live --
-- Hold the lock of :owner until the connection ends: it shows that the worker lives.
SELECT pg_advisory_lock(hashtextextended(:owner, 0));

-- ended --
-- The worker ends of its own will, and the connection stays.
SELECT pg_advisory_unlock(hashtextextended(:owner, 0));

-- orphaned --
-- End the leases of killed workers: silent for a minute, and no connection of theirs is left.
WITH silent AS MATERIALIZED (
    SELECT DISTINCT w.owner
    FROM tds_sync_queue q
    JOIN runbook.worker w ON w.owner = q.locked_by
    -- A long batch is silent too, and an older worker holds no lock: so both must say it.
    WHERE q.status = 'processing' AND q.lock_expires_at > now() AND w.beat_at <= now() - interval '1 minute'
), dead AS MATERIALIZED (
    SELECT s.owner FROM silent s WHERE pg_try_advisory_xact_lock(hashtextextended(s.owner, 0))
)
UPDATE tds_sync_queue q
SET lock_expires_at = now()
FROM dead d
WHERE q.status = 'processing' AND q.locked_by = d.owner AND q.lock_expires_at > now();

-- others --
-- Whether workers of another kind are at work: those whose names do not match :ours.
SELECT EXISTS (
    SELECT FROM tds_sync_queue q
    WHERE q.status = 'processing' AND coalesce(q.locked_by, '') !~ CAST(:ours AS text)
) OR EXISTS (
    -- The last leases, which stay after the event is settled.
    SELECT FROM (
        SELECT q.locked_by FROM tds_sync_queue q
        WHERE q.lock_expires_at > now()
        ORDER BY q.lock_expires_at DESC LIMIT 200
    ) last
    WHERE last.locked_by !~ CAST(:ours AS text)
) AS are_seen;

-- counts --
-- How many events are in hand, by the status that they still have in the queue.
SELECT q.status::text AS status, count(*) AS events
FROM runbook.in_hand h
CROSS JOIN LATERAL unnest(h.ids) AS noted (id)
JOIN tds_sync_queue q ON q.id = noted.id
WHERE q.status IN ('pending', 'retry')
GROUP BY q.status;

-- counts_by_type --
-- The same by entity type.
SELECT q.entity_type::text AS raw_type, q.status::text AS status, count(*) AS events
FROM runbook.in_hand h
CROSS JOIN LATERAL unnest(h.ids) AS noted (id)
JOIN tds_sync_queue q ON q.id = noted.id
WHERE q.status IN ('pending', 'retry')
GROUP BY 1, 2;

-- of --
-- Which of :ids are in hand.
SELECT DISTINCT noted.id
FROM runbook.in_hand h
CROSS JOIN LATERAL unnest(h.ids) AS noted (id)
WHERE noted.id = ANY (CAST(:ids AS uuid[]));

-- all_ids --
-- Every event that is in hand.
SELECT DISTINCT noted.id FROM runbook.in_hand h CROSS JOIN LATERAL unnest(h.ids) AS noted (id);
