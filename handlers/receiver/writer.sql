-- one_at_a_time --
-- Let nobody else write about these records until this transaction ends: the same webhook may be delivered to two
-- receivers at once. In one order, so that two of them never wait for each other; nobody waits long.
SELECT set_config('lock_timeout', '2s', true),
    (SELECT count(pg_advisory_xact_lock(n.number))
     FROM (SELECT DISTINCT hashtextextended(name, 0) AS number
           FROM unnest(CAST(:names AS text[])) AS a (name)
           ORDER BY number) AS n);

-- arrive --
-- Write the inbox row and the queue row of every webhook that says something new, and answer with those. What is
-- :asked about is new unless it says exactly what was received before: a version with a stamp at any time before,
-- one without a stamp in the newest event of its record. An event that ended as a dead letter does not count,
-- because sending it again is how a person tries again. The workers are called when this commits: once, because
-- equal calls of one transaction are one. Times go up in the order in which the webhooks came, one
-- microsecond each, so that the events of one record are applied in that order.
WITH arriving AS (
    SELECT a.id, a.inbox_id, CAST(a.entity AS tds_entity_type) AS entity, a.key, a.operation,
        CAST(a.payload AS jsonb) AS payload, a.content, a.headers, a.address, a.verified,
        statement_timestamp() + a.position * interval '1 microsecond' AS at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:inbox_ids AS uuid[]), CAST(:entities AS text[]),
        CAST(:keys AS text[]), CAST(:operations AS text[]), CAST(:payloads AS text[]), CAST(:contents AS text[]),
        CAST(:headers AS text[]), CAST(:addresses AS text[]), CAST(:verified AS boolean[]),
        CAST(:stamped AS boolean[]), CAST(:asked AS boolean[]))
        WITH ORDINALITY AS a (id, inbox_id, entity, key, operation, payload, content, headers, address, verified,
            stamped, asked, position)
    WHERE NOT a.asked OR NOT EXISTS (
        SELECT FROM tds_inbox_events i
        JOIN tds_sync_queue q ON q.inbox_event_id = i.id
        WHERE i.content_hash = a.content
          AND q.status NOT IN ('dead_letter', 'failed')
          AND (a.stamped OR NOT EXISTS (
              SELECT FROM tds_sync_queue newer
              WHERE newer.entity_type = q.entity_type
                AND newer.source_entity_id = q.source_entity_id
                AND (newer.created_at, newer.id) > (q.created_at, q.id)
          ))
    )
), inbox AS (
    INSERT INTO tds_inbox_events (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key,
        content_hash, webhook_headers, signature_verified, ip_address, received_at, processed_at, is_valid,
        moved_to_queue)
    SELECT a.inbox_id, 'zoho', a.entity, a.key, a.payload,
        'zoho:' || a.entity || ':' || a.key || ':' || a.id, a.content, CAST(a.headers AS jsonb), a.verified,
        a.address, a.at, a.at, true, true
    FROM arriving a
), queued AS (
    INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type,
        validated_payload, status, priority, attempt_count, max_retry_attempts, created_at)
    SELECT a.id, a.inbox_id, a.entity, a.key, CAST(a.operation AS tds_operation_type), a.payload, 'pending', 5, 0, 3,
        a.at
    FROM arriving a
    RETURNING id
)
SELECT id, pg_notify(:channel, '') FROM queued;
