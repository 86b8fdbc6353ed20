-- letters --
-- Dead letters, oldest first, with what tells who sees to them. Without :all only those that healing may try some day.
SELECT d.id, d.raw_type, d.key, d.created_at, d.code, d.error_message, d.class, d.attempts, d.dead_seconds,
    coalesce(t.tries, 0) AS tries,
    extract(epoch FROM clock_timestamp() - t.last_at)::float8 AS tried_seconds,
    newer.status AS newer
FROM (
    SELECT q.id, q.entity_type, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.created_at,
        coalesce(q.error_code, '') AS code, left(q.error_message, 2000) AS error_message,
        coalesce(q.processing_result ->> 'class', '') AS class, q.attempt_count AS attempts,
        -- Our workers leave the time of the last attempt; of others only the time is known at which it came.
        extract(epoch FROM clock_timestamp() - greatest(q.started_at, q.created_at))::float8 AS dead_seconds
    FROM tds_sync_queue q
    WHERE q.status = 'dead_letter' AND q.source_entity_id <> CAST(:synthetic AS text)
      AND (CAST(:all AS boolean)
           OR (coalesce(q.error_code, '') NOT IN ('missing_parent', 'lease_expired', 'unknown_type')
               AND q.processing_result ->> 'class' IS DISTINCT FROM 'permanent'
               AND greatest(q.started_at, q.created_at)
                   <= clock_timestamp() - make_interval(secs => CAST(:after_seconds AS double precision))
               AND (SELECT count(*) FROM runbook.heal_event e WHERE e.event_id = q.id AND e.counts)
                   < CAST(:tries_max AS bigint)))
    ORDER BY q.created_at, q.id
    LIMIT CAST(:limit AS bigint)
) d
LEFT JOIN LATERAL (
    SELECT count(*) AS tries, max(e.redriven_at) AS last_at
    FROM runbook.heal_event e WHERE e.event_id = d.id AND e.counts
) t ON true
LEFT JOIN LATERAL (
    -- What was applied says more than what is open.
    SELECT o.status
    FROM (
        SELECT n.status::text AS status, n.created_at, n.id
        FROM tds_sync_queue n
        WHERE n.entity_type = d.entity_type AND n.source_entity_id = d.key
        -- OFFSET 0 keeps this a lookup in the index on records.
        OFFSET 0
    ) o
    WHERE (o.created_at, o.id) > (d.created_at, d.id) AND o.status IN ('completed', 'pending', 'processing', 'retry')
    ORDER BY o.status = 'completed' DESC
    LIMIT 1
) newer ON true
ORDER BY d.created_at, d.id;

-- letter --
-- One dead letter.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.status::text AS status,
    left(q.error_message, 2000) AS error_message
FROM tds_sync_queue q WHERE q.id = CAST(:id AS uuid);
