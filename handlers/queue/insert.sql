-- lock_records --
-- Lock these records until this transaction ends: two receivers may get the same webhook, or a sync may read it.
-- A lock that is not free within two seconds fails the statement.
SELECT set_config('lock_timeout', '2s', true),
    (SELECT count(pg_advisory_xact_lock(n.number))
     FROM (SELECT DISTINCT hashtextextended(name, 0) AS number
           FROM unnest(CAST(:names AS text[])) AS a (name)
           -- All take the locks in one order: no deadlock.
           ORDER BY number) AS n);

-- insert_new --
-- Write the inbox row and the queue row of every event that says something new, and answer with those written.
WITH arriving AS (
    SELECT a.id, a.inbox_id, CAST(a.entity AS tds_entity_type) AS entity, a.key, a.operation,
        CAST(a.payload AS jsonb) AS payload, a.content, a.headers, a.address, a.verified,
        -- One microsecond apart, so that the events of one record are applied in the order in which they came.
        statement_timestamp() + a.position * interval '1 microsecond' AS at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:inbox_ids AS uuid[]), CAST(:entities AS text[]),
        CAST(:keys AS text[]), CAST(:operations AS text[]), CAST(:payloads AS text[]), CAST(:contents AS text[]),
        CAST(:headers AS text[]), CAST(:addresses AS text[]), CAST(:verified AS boolean[]),
        CAST(:stamped AS boolean[]), CAST(:deduplicated AS boolean[]))
        WITH ORDINALITY AS a (id, inbox_id, entity, key, operation, payload, content, headers, address, verified,
            stamped, deduplicated, position)
    WHERE NOT a.deduplicated OR NOT EXISTS (
        SELECT FROM tds_inbox_events i
        JOIN tds_sync_queue q ON q.inbox_event_id = i.id
        WHERE i.content_hash = a.content
          -- Sending a dead letter's webhook again is how a person tries again.
          AND (q.status NOT IN ('dead_letter', 'failed')
               -- A sync would find its own dead letters each time that it reads.
               OR (CAST(:once AS boolean) AND i.source_type = CAST(:source AS tds_source_type)))
          -- A version with a stamp is a duplicate of any event before it; one without a stamp only of the newest.
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
    SELECT a.inbox_id, CAST(:source AS tds_source_type), a.entity, a.key, a.payload,
        CAST(:source AS text) || ':' || a.entity || ':' || a.key || ':' || a.id, a.content, CAST(a.headers AS jsonb),
        a.verified, a.address, a.at, a.at, true, true
    FROM arriving a
), queued AS (
    -- Three attempts are what the ERP's own receivers write.
    INSERT INTO tds_sync_queue (id, inbox_event_id, entity_type, source_entity_id, operation_type,
        validated_payload, status, priority, attempt_count, max_retry_attempts, created_at)
    SELECT a.id, a.inbox_id, a.entity, a.key, CAST(a.operation AS tds_operation_type), a.payload, 'pending',
        CAST(:priority AS integer), 0, 3, a.at
    FROM arriving a
    RETURNING id
)
-- The workers are woken when this commits. Equal notifications of one transaction are sent once.
SELECT id, pg_notify(:channel, '') FROM queued;
