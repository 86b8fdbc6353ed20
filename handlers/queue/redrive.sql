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
-- What is settled, or leased to a worker that may still be at it, is left alone and missing in the answer. The ERP's own
-- worker takes its lease before it says that it is at work; a lease whose holder has said what came of it binds nobody.
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
  AND q.status IN ('pending', 'retry', 'processing')
  AND (CAST(:even_leased AS boolean)
       OR q.lock_expires_at <= now()
       OR (q.status IN ('pending', 'retry')
           AND (q.locked_by IS NULL OR q.locked_by = q.processing_result ->> 'worker')))
RETURNING q.id;

-- insert_event --
-- Write what a receiver writes for one webhook: the inbox row and the queue row, in one statement.
WITH arrived AS (
    INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key,
        content_hash, webhook_headers, signature_verified, is_valid, moved_to_queue)
    VALUES (:inbox_id, CAST(:source AS tds_source_type), CAST(:entity AS tds_entity_type), :key,
        CAST(:payload AS jsonb), :idempotency_key, :content_hash, CAST(:headers AS jsonb), false, true, true)
    RETURNING id, entity_type, source_entity_id, raw_payload
)
INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload,
    status, priority, attempt_count, max_retry_attempts)
SELECT :id, a.id, a.entity_type, a.source_entity_id, CAST(:operation AS tds_operation_type), a.raw_payload,
    'pending', 5, 0, 3
FROM arrived a
RETURNING id;

-- notify --
-- Wake the workers when this transaction commits.
SELECT pg_notify('tds_sync_queue', '');
