-- hand --
-- What workers have in hand without a lease, with the start of the batch.
WITH hand AS (
    SELECT noted.id, h.owner, h.since FROM runbook.in_hand h CROSS JOIN LATERAL unnest(h.ids) AS noted (id)
)

-- no_hand --
-- The same where there is no such table.
WITH hand AS (
    SELECT CAST(NULL AS uuid) AS id, CAST(NULL AS text) AS owner, CAST(NULL AS timestamptz) AS since WHERE false
)

-- changed --
-- Events that were taken or ended since :since, those in :open, and the first :waiting_max that wait for a worker.
-- Each part is bounded by an index: the history and the backlog cost nothing.
, waiting AS (
    SELECT q.id, q.entity_type, q.source_entity_id
    FROM tds_sync_queue q
    WHERE q.status = 'pending'
    ORDER BY q.priority, q.created_at, q.id
    LIMIT CAST(:waiting_max AS bigint)
), wanted AS (
    SELECT id FROM hand
    UNION
    SELECT unnest(CAST(:open AS uuid[]))
    UNION
    SELECT id FROM waiting
    UNION
    -- What is to be tried again, also from before the release, holds back what is newer of its record.
    SELECT first.id
    FROM (SELECT DISTINCT w.entity_type, w.source_entity_id FROM waiting w) record
    CROSS JOIN LATERAL (
        SELECT e.id
        FROM (
            SELECT again.id, again.created_at
            FROM tds_sync_queue again
            WHERE again.entity_type = record.entity_type
              AND again.source_entity_id = record.source_entity_id
              AND again.status = 'retry'
              AND again.error_code IS DISTINCT FROM 'missing_parent'
            OFFSET 0
        ) e
        ORDER BY e.created_at + interval '0', e.id
        LIMIT 1
    ) first
    UNION
    SELECT q.id FROM tds_sync_queue q WHERE q.status = 'processing'
    UNION
    -- Our workers leave the time of their last lease, also when the event has ended.
    SELECT q.id FROM tds_sync_queue q
    WHERE q.lock_expires_at >= CAST(:since AS timestamptz)
      AND (q.started_at >= CAST(:since AS timestamptz) OR q.completed_at >= CAST(:since AS timestamptz))
    UNION
    -- The ERP's own workers do not.
    SELECT q.id FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:since AS timestamptz) AND q.status <> 'pending'
)
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.priority, q.status::text AS status,
    q.created_at, hand.id IS NOT NULL AS in_hand,
    CASE WHEN q.processing_result ->> 'admitted' ~ CAST(:utc AS text)
            THEN CAST(q.processing_result ->> 'admitted' AS timestamptz)
         WHEN q.status NOT IN ('pending', 'retry') AND q.started_at BETWEEN q.created_at AND clock_timestamp()
            THEN q.started_at
         WHEN hand.id IS NOT NULL THEN hand.since
         -- A time that lies before the event or in the future was written without a zone: it says nothing.
         WHEN q.status <> 'pending' AND q.started_at BETWEEN q.created_at AND clock_timestamp() THEN q.started_at
    END AS admitted,
    q.started_at, q.completed_at, q.next_retry_at, q.error_code AS code, left(q.error_message, 300) AS error,
    jsonb_build_object(
        'class', q.processing_result -> 'class', 'fingerprint', q.processing_result -> 'fingerprint',
        'revision', q.processing_result -> 'revision', 'parents', q.processing_result -> 'parents',
        'attempts', q.processing_result -> 'attempts')::text AS result,
    -- What the worker runs that has the event now, or had it last.
    w.revision AS owner_revision
FROM wanted
JOIN tds_sync_queue q ON q.id = wanted.id
LEFT JOIN hand ON hand.id = q.id
LEFT JOIN runbook.worker w ON w.owner = coalesce(hand.owner, q.locked_by)
-- A release's own test event is no traffic.
WHERE q.source_entity_id <> CAST(:synthetic AS text)
ORDER BY q.created_at, q.id;

-- letters_of_before --
-- The newest dead letters of events that came and were taken last before :switch.
SELECT q.id
FROM tds_sync_queue q
WHERE q.status = 'dead_letter'
  AND q.created_at < CAST(:switch AS timestamptz)
  AND coalesce(q.started_at, q.created_at) < CAST(:switch AS timestamptz)
ORDER BY q.created_at DESC
LIMIT CAST(:rows_max AS bigint);

-- day_before --
-- The last :rows_max events of the day before :until, by type. A unit is a record, once in ten minutes.
WITH came AS (
    SELECT q.entity_type::text AS raw_type, q.source_entity_id AS key, q.status::text AS status, q.created_at,
        q.started_at, q.completed_at, q.attempt_count, q.error_message, q.error_code,
        q.processing_result ->> 'fingerprint' AS fingerprint,
        coalesce(q.processing_result -> 'attempts', '[]') AS attempts,
        CASE WHEN q.processing_result ->> 'admitted' ~ CAST(:utc AS text)
             THEN CAST(q.processing_result ->> 'admitted' AS timestamptz) END AS admitted
    FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:until AS timestamptz) - interval '1 day'
      AND q.created_at < CAST(:until AS timestamptz)
      AND q.source_entity_id <> CAST(:synthetic AS text)
    ORDER BY q.created_at DESC
    LIMIT CAST(:rows_max AS bigint)
), ended AS (
    SELECT c.raw_type, c.key, c.status = 'completed' AS good, floor(extract(epoch FROM c.created_at) / 600) AS tenth,
        c.created_at, coalesce(c.fingerprint, c.error_message) AS error, c.fingerprint IS NOT NULL AS is_masked,
        CASE WHEN c.status = 'completed' AND c.completed_at >= coalesce(c.admitted, c.started_at)
             THEN extract(epoch FROM c.completed_at - coalesce(c.admitted, c.started_at)) END AS seconds,
        -- A retry whose attempts are not noted waited for a parent.
        c.admitted IS NOT NULL AND jsonb_array_length(
            CASE WHEN jsonb_typeof(c.attempts) = 'array' THEN c.attempts ELSE '[]' END) = 0
            AND (c.status = 'completed' OR c.error_code = 'missing_parent') AS waited
    FROM came c
    WHERE c.status IN ('completed', 'failed', 'dead_letter')
), units AS (
    SELECT DISTINCT ON (e.raw_type, e.key, e.tenth) e.raw_type, e.good, e.seconds, e.waited,
        left(e.error, 300) AS error, e.is_masked
    FROM ended e
    ORDER BY e.raw_type, e.key, e.tenth, e.created_at
)
SELECT u.raw_type, count(*) AS units, count(*) FILTER (WHERE u.good) AS good,
    count(*) FILTER (WHERE u.waited) AS waited,
    percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY u.seconds) FILTER (WHERE u.good AND NOT u.waited)
        AS latency,
    array_agg(u.seconds) FILTER (WHERE u.good AND u.waited) AS waits,
    (SELECT coalesce(jsonb_agg(jsonb_build_array(e.error, e.is_masked, e.units)), '[]')::text
     FROM (SELECT f.error, f.is_masked, count(*) AS units
           FROM units f
           WHERE f.raw_type = u.raw_type AND NOT f.good AND f.error <> ''
           GROUP BY f.error, f.is_masked
           ORDER BY count(*) DESC
           LIMIT 200) e) AS errors
FROM units u
GROUP BY u.raw_type;
