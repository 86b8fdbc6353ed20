-- claim --
-- Lease the oldest due events to :owner in one statement. Due retries come first, because a long backlog must not
-- starve them; then pending ones in the order of the queue's own index (priority 1 before 10; receivers always
-- write 5). Only rows that nobody else is claiming are locked. Events of one record are applied in order: a row is
-- taken only when every older open event of its record is in this same batch, which also holds against a claim
-- that has not committed yet. What could not be in one batch with its older event is not chosen at all: chosen and
-- then dropped, such events would fill every batch, and nothing would ever be taken again. What holds a record up is
-- looked for once for each record and not for each of its events, of which there may be thousands; OFFSET 0 keeps
-- that a look into the index of records: with a LIMIT on top, the planner would walk through another index until it
-- meets one. With :ids only these are taken, and only a lease of somebody else holds them up: the ERP's
-- own workers take theirs before they say that they are at work. A lease whose holder has said what came of the event
-- (see `complete`) holds nobody up.
-- Where the ledger has limits on intake, the line in brackets becomes a condition: nothing is taken at one go then.
WITH again AS (
    SELECT q.id, q.entity_type, q.source_entity_id, q.created_at
    FROM tds_sync_queue q
    LEFT JOIN LATERAL (
        SELECT e.created_at, e.id
        FROM (
            SELECT held.created_at, held.id
            FROM tds_sync_queue held
            WHERE held.entity_type = q.entity_type
              AND held.source_entity_id = q.source_entity_id
              AND (held.status = 'processing'
                   OR (held.status = 'pending' AND held.lock_expires_at > now())
                   OR (CAST(:ids AS uuid[]) IS NULL
                       AND (held.status = 'pending' OR (held.status = 'retry' AND held.next_retry_at > now()))))
            OFFSET 0
        ) e
        ORDER BY e.created_at, e.id
        LIMIT 1
    ) first ON true
    WHERE q.status = 'retry'
      AND q.next_retry_at <= now()
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
      AND q.entity_type::text = ANY (CAST(:entities AS text[]))
      AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
      AND (first.id IS NULL OR (q.created_at, q.id) <= (first.created_at, first.id))
    ORDER BY q.created_at, q.id
    LIMIT CAST(:limit AS bigint)
    FOR UPDATE OF q SKIP LOCKED
), fresh AS (
    SELECT q.id, q.entity_type, q.source_entity_id, q.created_at
    FROM tds_sync_queue q
    LEFT JOIN LATERAL (
        SELECT e.created_at, e.id
        FROM (
            SELECT held.created_at, held.id
            FROM tds_sync_queue held
            WHERE held.entity_type = q.entity_type
              AND held.source_entity_id = q.source_entity_id
              AND (held.status = 'processing'
                   OR (held.status = 'pending' AND held.lock_expires_at > now())
                   OR (CAST(:ids AS uuid[]) IS NULL
                       AND ((held.status = 'retry' AND held.next_retry_at > now())
                            OR (held.status = 'pending' AND held.priority > q.priority))))
            OFFSET 0
        ) e
        ORDER BY e.created_at, e.id
        LIMIT 1
    ) first ON true
    WHERE q.status = 'pending'
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
      AND q.entity_type::text = ANY (CAST(:entities AS text[]))
      AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
      AND (first.id IS NULL OR (q.created_at, q.id) <= (first.created_at, first.id))
    ORDER BY q.priority, q.created_at, q.id
    LIMIT (SELECT CAST(:limit AS bigint) - count(*) FROM again)
    FOR UPDATE OF q SKIP LOCKED
), locked AS (
    SELECT id, entity_type, source_entity_id, created_at FROM again
    UNION ALL
    SELECT id, entity_type, source_entity_id, created_at FROM fresh
), left_out AS (
    SELECT record.entity_type, record.source_entity_id, first.created_at, first.id
    FROM (SELECT DISTINCT entity_type, source_entity_id FROM locked) record
    CROSS JOIN LATERAL (
        SELECT e.created_at, e.id
        FROM (
            SELECT older.created_at, older.id
            FROM tds_sync_queue older
            WHERE older.entity_type = record.entity_type
              AND older.source_entity_id = record.source_entity_id
              AND (older.status = 'processing'
                   OR (older.status IN ('pending', 'retry') AND CAST(:ids AS uuid[]) IS NULL))
              AND older.id NOT IN (SELECT id FROM locked)
            OFFSET 0
        ) e
        ORDER BY e.created_at, e.id
        LIMIT 1
    ) first
), mine AS (
    SELECT l.id
    FROM locked l
    LEFT JOIN left_out o ON o.entity_type = l.entity_type AND o.source_entity_id = l.source_entity_id
    WHERE (o.id IS NULL OR (l.created_at, l.id) < (o.created_at, o.id))
    -- [unless intake is limited]
)
UPDATE tds_sync_queue q
SET status = 'processing',
    locked_by = :owner,
    lock_expires_at = now() + make_interval(secs => CAST(:lease_seconds AS double precision)),
    started_at = now(),
    attempt_count = q.attempt_count + 1
-- An array, not a join: the planner then reaches the rows by their key and never reads the whole table.
WHERE q.id = ANY (ARRAY(SELECT id FROM mine))
RETURNING q.id, q.entity_type::text AS entity_type, q.source_entity_id, q.operation_type::text AS operation_type,
    q.validated_payload::text AS payload, q.attempt_count, q.max_retry_attempts, q.created_at;
