-- event --
-- One event without its payload, and where it came from.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.operation_type::text AS operation,
    q.status::text AS status, q.priority, q.attempt_count, q.max_retry_attempts, q.created_at, q.started_at,
    q.completed_at, q.next_retry_at, q.error_code, left(q.error_message, 2000) AS error_message, q.locked_by,
    q.lock_expires_at, q.target_entity_id,
    -- Who has written a result leaves the lease to run out, and has the event no longer.
    q.lock_expires_at > clock_timestamp() AND (q.status = 'processing' OR (q.status IN ('pending', 'retry')
        AND q.locked_by IS DISTINCT FROM q.processing_result ->> 'worker')) AS is_leased,
    CASE WHEN jsonb_typeof(q.processing_result) = 'object' THEN q.processing_result::text END AS result,
    pg_column_size(q.validated_payload) AS payload_bytes, clock_timestamp() AS at,
    i.source_type::text AS source, i.signature_verified, i.ip_address, i.received_at
FROM tds_sync_queue q
LEFT JOIN tds_inbox_events i ON i.id = q.inbox_event_id
WHERE q.id = CAST(:id AS uuid);

-- payload_keys --
-- The keys of the payload and of the objects in it with the types of their values, at most :limit. Never a value.
SELECT k.path, k.type
FROM (SELECT q.validated_payload AS payload FROM tds_sync_queue q WHERE q.id = CAST(:id AS uuid)) p
CROSS JOIN LATERAL (
    SELECT top.key AS path, jsonb_typeof(top.value) AS type
    FROM jsonb_each(CASE WHEN jsonb_typeof(p.payload) = 'object' THEN p.payload ELSE '{}' END) AS top
    UNION ALL
    SELECT top.key || '.' || inner_.key, jsonb_typeof(inner_.value)
    FROM jsonb_each(CASE WHEN jsonb_typeof(p.payload) = 'object' THEN p.payload ELSE '{}' END) AS top
    CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(top.value) = 'object' THEN top.value ELSE '{}' END) AS inner_
) k
ORDER BY k.path
LIMIT CAST(:limit AS bigint);

-- in_hand --
-- Who has the event in hand without a lease, and since when.
SELECT h.owner, h.since FROM runbook.in_hand h WHERE CAST(:id AS uuid) = ANY (h.ids) ORDER BY h.since DESC LIMIT 1;

-- worker --
-- The worker with this name.
SELECT w.host, w.pid, w.revision, w.beat_at, w.stopped_at FROM runbook.worker w WHERE w.owner = :owner;

-- older_open --
-- The oldest open event of the same record that came before this one: it is applied first.
SELECT e.id, e.status
FROM (
    SELECT o.id, o.status::text AS status, o.created_at
    FROM tds_sync_queue q
    JOIN tds_sync_queue o ON o.entity_type = q.entity_type AND o.source_entity_id = q.source_entity_id
    WHERE q.id = CAST(:id AS uuid)
      AND (o.created_at, o.id) < (q.created_at, q.id)
      AND o.status IN ('pending', 'processing', 'retry')
      AND o.error_code IS DISTINCT FROM 'missing_parent'
    -- OFFSET 0 keeps this a lookup in the index on records.
    OFFSET 0
) e
ORDER BY e.created_at, e.id
LIMIT 1;

-- parents --
-- The newest event of each record that this one waits for. None where no event of it is in the queue.
SELECT k.key, came.id, came.raw_type, came.status
FROM unnest(CAST(:keys AS text[])) WITH ORDINALITY AS k (key, position)
LEFT JOIN LATERAL (
    SELECT e.id, e.raw_type, e.status
    FROM (
        SELECT o.id, o.entity_type::text AS raw_type, o.status::text AS status, o.created_at
        FROM tds_sync_queue o
        WHERE o.source_entity_id = k.key
        OFFSET 0
    ) e
    ORDER BY e.created_at DESC, e.id DESC
    LIMIT 1
) came ON true
ORDER BY k.position;

-- redrives --
-- The releases that were to redrive the event, the newest first. By the key of the table, once for each release.
SELECT r.id AS release, e.batch, e.redriven_at, e.settled_at, e.status, r.phase::text AS phase
FROM runbook.release r
CROSS JOIN LATERAL (
    SELECT e.batch, e.redriven_at, e.settled_at, e.status
    FROM runbook.release_event e
    WHERE e.release_id = r.id AND e.event_id = CAST(:id AS uuid)
    OFFSET 0
) e
ORDER BY r.created_at DESC
LIMIT 20;

-- healings --
-- When healing sent the event back, the newest first.
SELECT e.action_id AS batch, e.redriven_at, e.settled_at, e.status, e.counts
FROM runbook.heal_event e
WHERE e.event_id = CAST(:id AS uuid)
ORDER BY e.redriven_at DESC
LIMIT 20;

-- tables_there --
-- Which of our tables can be read here.
SELECT t.name FROM unnest(CAST(ARRAY['in_hand', 'worker', 'release_event', 'heal_event'] AS text[])) AS t (name)
-- CASE, because a question about a schema that is not there would be an error.
WHERE CASE WHEN to_regclass('runbook.' || t.name) IS NULL THEN false
           ELSE has_schema_privilege('runbook', 'USAGE') AND has_table_privilege('runbook.' || t.name, 'SELECT') END;
