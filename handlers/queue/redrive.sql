-- redrive --
-- Send exactly these dead letters back to pending with a clean slate, and answer with all that was wiped.
WITH former AS (
    SELECT q.id, q.attempt_count, q.error_message, q.error_code, q.locked_by,
        q.lock_expires_at::text AS lock_expires_at, q.next_retry_at::text AS next_retry_at,
        q.started_at::text AS started_at, q.completed_at::text AS completed_at,
        q.target_entity_id, q.processing_result::text AS processing_result
    FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[])) AND q.status = 'dead_letter'
    ORDER BY q.id
    FOR UPDATE OF q
), moved AS (
    UPDATE tds_sync_queue q
    SET status = 'pending',
        attempt_count = 0,
        error_message = NULL,
        error_code = NULL,
        locked_by = NULL,
        lock_expires_at = NULL,
        next_retry_at = NULL,
        started_at = NULL,
        completed_at = NULL,
        processing_result = NULL
    WHERE q.id = ANY (ARRAY(SELECT id FROM former))
    RETURNING q.id
)
SELECT f.id, f.attempt_count, f.error_message, f.error_code, f.locked_by, f.lock_expires_at, f.next_retry_at,
    f.started_at, f.completed_at, f.target_entity_id, f.processing_result
FROM former f
JOIN moved m ON m.id = f.id
ORDER BY f.id;

-- restore --
-- Put redriven events that have not come to rest back as the dead letters they were, to the last column.
-- Settled events, and those that a worker may still have in hand, are missing in the answer.
WITH free AS (
    -- What a worker has claimed by row locks is left to it.
    SELECT q.id FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET status = 'dead_letter',
    attempt_count = r.attempt_count,
    error_message = r.error_message,
    error_code = r.error_code,
    locked_by = r.locked_by,
    lock_expires_at = CAST(r.lock_expires_at AS timestamptz),
    next_retry_at = CAST(r.next_retry_at AS timestamptz),
    started_at = CAST(r.started_at AS timestamptz),
    completed_at = CAST(r.completed_at AS timestamptz),
    target_entity_id = r.target_entity_id,
    processing_result = CAST(r.processing_result AS jsonb)
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:attempt_counts AS integer[]), CAST(:error_messages AS text[]),
    CAST(:error_codes AS text[]), CAST(:locked_bys AS text[]), CAST(:lock_expires_ats AS text[]),
    CAST(:next_retry_ats AS text[]), CAST(:started_ats AS text[]), CAST(:completed_ats AS text[]),
    CAST(:target_entity_ids AS text[]), CAST(:processing_results AS text[])
) AS r (id, attempt_count, error_message, error_code, locked_by, lock_expires_at, next_retry_at, started_at,
        completed_at, target_entity_id, processing_result)
WHERE q.id = r.id
  AND q.id = ANY (ARRAY(SELECT id FROM free))
  AND q.status IN ('pending', 'retry', 'processing')
  -- A lease from before this time belongs to a worker that is gone.
  AND (q.started_at < CAST(:leased_before AS timestamptz)
       OR (
           -- The lease is free, as in claim.sql. The ERP's own workers take it before they set the status.
           (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
           -- A worker has an event in processing until its lease expires.
           AND (q.status <> 'processing' OR q.lock_expires_at <= now())
       ))
RETURNING q.id;

-- notify --
-- Wake the workers when this transaction commits.
SELECT pg_notify(:channel, '');
