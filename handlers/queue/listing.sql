-- limit_time --
-- No query of this transaction runs longer than :milliseconds: a look by hand must not slow the queue down.
SELECT set_config('statement_timeout', CAST(:milliseconds AS text), true);

-- type_names --
-- The entity types that this ERP's queue can hold.
SELECT e.enumlabel AS name FROM pg_enum e WHERE e.enumtypid = to_regtype('tds_entity_type');

-- counts_since --
-- How many events stand in each status, of those that came or were taken since :since. The synthetic event is left out.
SELECT s.status, count(*) AS events
FROM (
    SELECT q.status::text AS status
    FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:since AS timestamptz) AND q.source_entity_id <> CAST(:synthetic AS text)
    UNION ALL
    -- Our workers leave the time of their last lease: an index leads to what was taken.
    SELECT q.status::text
    FROM tds_sync_queue q
    WHERE q.lock_expires_at >= CAST(:since AS timestamptz)
      AND q.created_at < CAST(:since AS timestamptz)
      AND (q.started_at >= CAST(:since AS timestamptz) OR q.completed_at >= CAST(:since AS timestamptz))
      AND q.source_entity_id <> CAST(:synthetic AS text)
) s
GROUP BY s.status;

-- found --
-- The newest :limit events that match, without their payloads. Of those that came or were taken since :since, if given.
WITH came AS (
    SELECT q.id, q.entity_type, q.source_entity_id, q.status, q.attempt_count, q.created_at, q.started_at,
        q.completed_at, q.error_code, q.error_message
    FROM tds_sync_queue q
    WHERE (CAST(:since AS timestamptz) IS NULL OR q.created_at >= CAST(:since AS timestamptz))
      -- What a worker has in hand is in processing, whatever its row says.
      AND (CAST(:statuses AS tds_event_status[]) IS NULL
           OR q.status = ANY (CAST(:statuses AS tds_event_status[]))
           OR q.id = ANY (CAST(:also AS uuid[])))
      AND NOT q.id = ANY (CAST(:never AS uuid[]))
      AND (CAST(:types AS tds_entity_type[]) IS NULL
           OR q.entity_type = ANY (CAST(:types AS tds_entity_type[])))
      AND (CAST(:key AS text) IS NULL OR q.source_entity_id = CAST(:key AS text))
      AND (CAST(:pattern AS text) IS NULL
           OR q.error_message ILIKE CAST(:pattern AS text) OR lower(q.error_code) = lower(CAST(:error AS text)))
    ORDER BY q.created_at DESC, q.id DESC
    LIMIT CAST(:limit AS bigint)
), taken AS (
    -- The same for what came before and was taken since.
    SELECT q.id, q.entity_type, q.source_entity_id, q.status, q.attempt_count, q.created_at, q.started_at,
        q.completed_at, q.error_code, q.error_message
    FROM tds_sync_queue q
    WHERE q.created_at < CAST(:since AS timestamptz)
      AND q.lock_expires_at >= CAST(:since AS timestamptz)
      AND (q.started_at >= CAST(:since AS timestamptz) OR q.completed_at >= CAST(:since AS timestamptz))
      AND (CAST(:statuses AS tds_event_status[]) IS NULL
           OR q.status = ANY (CAST(:statuses AS tds_event_status[]))
           OR q.id = ANY (CAST(:also AS uuid[])))
      AND NOT q.id = ANY (CAST(:never AS uuid[]))
      AND (CAST(:types AS tds_entity_type[]) IS NULL
           OR q.entity_type = ANY (CAST(:types AS tds_entity_type[])))
      AND (CAST(:key AS text) IS NULL OR q.source_entity_id = CAST(:key AS text))
      AND (CAST(:pattern AS text) IS NULL
           OR q.error_message ILIKE CAST(:pattern AS text) OR lower(q.error_code) = lower(CAST(:error AS text)))
    -- The sum keeps the planner from walking the queue in the order of time until it finds enough.
    ORDER BY q.created_at + interval '0' DESC, q.id DESC
    LIMIT CAST(:limit AS bigint)
)
SELECT e.id, e.entity_type::text AS raw_type, e.source_entity_id AS key, e.status::text AS status,
    e.attempt_count AS attempts, e.created_at, e.started_at, e.completed_at, e.error_code,
    left(e.error_message, 2000) AS error_message
FROM (TABLE came UNION ALL TABLE taken) e
ORDER BY e.created_at DESC, e.id DESC
LIMIT CAST(:limit AS bigint);
