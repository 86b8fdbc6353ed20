-- in_order --
-- Until the end of the transaction the planner walks an index in its order instead of sorting.
-- It would sort what it believes to be few: with statistics from before a burst, all of the burst.
SELECT set_config('enable_sort', 'off', true);

-- busy --
-- The events of batches in progress (`in_hand`). Only those of leases can be seen in the queue itself.
WITH busy AS (SELECT unnest(h.ids) AS id FROM runbook.in_hand h)

-- nothing_busy --
-- The same where there is no such table.
WITH busy AS (SELECT CAST(NULL AS uuid) AS id WHERE false)

-- chosen --
-- The oldest due events: due retries, then pending ones. With :ids only these are taken.
, intake AS (
    -- Whether a limit is in force for one of :entities that is not among those that the caller keeps.
    -- A statement that names a missing table cannot be planned, and databases without our ledger have none.
    -- query_to_xml plans its text only when it runs, with the snapshot of this statement.
    SELECT CASE
        WHEN to_regclass('runbook.intake') IS NULL THEN false
        ELSE query_to_xml(format(
            'SELECT FROM runbook.intake WHERE until > now()'
            ' AND entity_type = ANY (%L) AND entity_type <> ALL (%L) LIMIT 1',
            array_append(CAST(:entities AS text[]), '*'), CAST(:kept AS text[])
        ), false, true, '')::text <> ''
    END AS is_limited
), retries AS (
    -- Due retries come first: a long backlog must not starve them.
    -- Twin of `fresh`: a test holds them equal except for status, order and limit. One CTE for both read up to 700
    -- times the buffers: with the status as a parameter, the planner could not choose an index.
    SELECT q.id, q.entity_type, q.source_entity_id, q.created_at, pg_column_size(q.validated_payload) AS bytes,
        pg_column_compression(q.validated_payload) IS NOT NULL AS is_packed
    FROM tds_sync_queue q
    -- One row, and a hundred to the planner: so it keeps the answer of the lookup below for each record (Memoize).
    -- With statistics from before a burst it would look up each event of a record, and read all of them each time.
    CROSS JOIN json_to_recordset('[{"once": true}]') AS memo (once boolean)
    LEFT JOIN LATERAL (
        -- The oldest event of the record that cannot be in this batch: nothing newer may be taken before it.
        -- Newer ones are not chosen at all. Chosen and then dropped, they could fill every batch and stall the queue.
        SELECT e.created_at, e.id
        FROM (
            SELECT held.created_at, held.id
            FROM tds_sync_queue held
            WHERE memo.once
              AND held.entity_type = q.entity_type
              AND held.source_entity_id = q.source_entity_id
              AND (held.status = 'processing'
                   OR held.id IN (SELECT id FROM busy)
                   -- The ERP's own workers take their lease before they set the status.
                   OR (held.status = 'pending' AND held.lock_expires_at > now())
                   -- With :ids only leases of others count: the caller has chosen the events.
                   OR (CAST(:ids AS uuid[]) IS NULL
                       -- Due retries are taken in the order of their time, by an index: of a record only the oldest.
                       -- What waits for a parent holds nothing back: a newer event may be what it waits for.
                       AND ((held.status = 'retry' AND (q.status = 'retry' OR held.next_retry_at > now())
                             AND held.error_code IS DISTINCT FROM 'missing_parent')
                            OR (held.status = 'retry' AND held.locked_by = 'lost lease')
                            -- Pending events come after every retry, and after pending ones of a better priority.
                            OR (held.status = 'pending' AND (q.status = 'retry' OR held.priority > q.priority)))))
            -- OFFSET 0 keeps this a lookup in the index on records. With the LIMIT pushed down, the planner would walk
            -- another index until it finds the record.
            OFFSET 0
        ) e
        -- The sum keeps the planner from an index in the order of time: it would walk that until it finds the record.
        ORDER BY e.created_at + interval '0', e.id
        LIMIT 1
    ) first ON true
    WHERE q.status = 'retry'
      AND q.next_retry_at <= now()
      -- The lease is free: nobody has it, it has expired, or its holder has already written the result.
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
      -- What lost its lease is only taken in the pieces into which its batch was divided.
      AND (CAST(:lost AS boolean) OR q.locked_by IS DISTINCT FROM 'lost lease')
      -- Compared as text: a word that the ERP's enum does not have would be an error.
      AND q.entity_type::text = ANY (CAST(:entities AS text[]))
      AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
      AND q.id NOT IN (SELECT id FROM busy)
      AND (first.id IS NULL OR (q.created_at, q.id) <= (first.created_at, first.id))
      AND NOT (SELECT is_limited FROM intake)
    ORDER BY q.next_retry_at, q.created_at, q.id
    LIMIT least(CAST(:limit AS bigint), CAST(:retries_max AS bigint))
    FOR UPDATE OF q SKIP LOCKED
), fresh AS (
    SELECT q.id, q.entity_type, q.source_entity_id, q.created_at, pg_column_size(q.validated_payload) AS bytes,
        pg_column_compression(q.validated_payload) IS NOT NULL AS is_packed
    FROM tds_sync_queue q
    CROSS JOIN json_to_recordset('[{"once": true}]') AS memo (once boolean)
    LEFT JOIN LATERAL (
        SELECT e.created_at, e.id
        FROM (
            SELECT held.created_at, held.id
            FROM tds_sync_queue held
            WHERE memo.once
              AND held.entity_type = q.entity_type
              AND held.source_entity_id = q.source_entity_id
              AND (held.status = 'processing'
                   OR held.id IN (SELECT id FROM busy)
                   OR (held.status = 'pending' AND held.lock_expires_at > now())
                   OR (CAST(:ids AS uuid[]) IS NULL
                       AND ((held.status = 'retry' AND (q.status = 'retry' OR held.next_retry_at > now())
                             AND held.error_code IS DISTINCT FROM 'missing_parent')
                            OR (held.status = 'retry' AND held.locked_by = 'lost lease')
                            OR (held.status = 'pending' AND (q.status = 'retry' OR held.priority > q.priority)))))
            OFFSET 0
        ) e
        ORDER BY e.created_at + interval '0', e.id
        LIMIT 1
    ) first ON true
    WHERE q.status = 'pending'
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
      AND (CAST(:lost AS boolean) OR q.locked_by IS DISTINCT FROM 'lost lease')
      AND q.entity_type::text = ANY (CAST(:entities AS text[]))
      AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
      AND q.id NOT IN (SELECT id FROM busy)
      AND (first.id IS NULL OR (q.created_at, q.id) <= (first.created_at, first.id))
      AND NOT (SELECT is_limited FROM intake)
    -- The order of the queue's own index: priority 1 before 10. Receivers always write 5.
    ORDER BY q.priority, q.created_at, q.id
    LIMIT (SELECT least(CAST(:limit AS bigint) - count(*), CAST(:fresh_max AS bigint)) FROM retries)
    FOR UPDATE OF q SKIP LOCKED
), locked AS (
    SELECT id, entity_type, source_entity_id, created_at, bytes, is_packed FROM retries
    UNION ALL
    SELECT id, entity_type, source_entity_id, created_at, bytes, is_packed FROM fresh
), left_out AS (
    -- The oldest open event of each record that the batch does not have. It also sees events that another claim has
    -- locked and not committed yet. Looked up once for each record, which may have thousands of events.
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
                   OR (older.status IN ('pending', 'retry') AND CAST(:ids AS uuid[]) IS NULL
                       -- As above: what waits for a parent holds nothing back.
                       AND (older.status = 'pending' OR older.error_code IS DISTINCT FROM 'missing_parent')))
              AND older.id NOT IN (SELECT id FROM locked)
            OFFSET 0
        ) e
        ORDER BY e.created_at + interval '0', e.id
        LIMIT 1
    ) first
), mine AS (
    SELECT l.id, l.created_at, l.bytes, l.is_packed,
        -- A compressed payload is estimated here. Its text is not read for more events than will be taken.
        sum(l.bytes * CASE WHEN l.is_packed THEN 4 ELSE 1 END) OVER (ORDER BY l.created_at, l.id) AS estimate
    FROM locked l
    LEFT JOIN left_out o ON o.entity_type = l.entity_type AND o.source_entity_id = l.source_entity_id
    WHERE o.id IS NULL OR (l.created_at, l.id) < (o.created_at, o.id)
), sized AS (
    SELECT m.id, sum(size.bytes) OVER (ORDER BY m.created_at, m.id) AS total,
        row_number() OVER (ORDER BY m.created_at, m.id) AS place
    FROM mine m
    CROSS JOIN LATERAL (
        -- The empty path gives the payload uncompressed, without the cost of printing it.
        SELECT CASE WHEN m.is_packed
            THEN (SELECT pg_column_size(p.validated_payload #> '{}') FROM tds_sync_queue p WHERE p.id = m.id)
            ELSE m.bytes END AS bytes
    ) size
    WHERE m.estimate - m.bytes * CASE WHEN m.is_packed THEN 4 ELSE 1 END < CAST(:bytes_max AS bigint) * 2
)

-- lease --
-- Lease the chosen events to :owner. Committed at once, so that every worker sees it.
UPDATE tds_sync_queue q
SET status = 'processing',
    locked_by = :owner,
    lock_expires_at = now() + make_interval(secs => CAST(:lease_seconds AS double precision)),
    started_at = now(),
    attempt_count = q.attempt_count + 1
-- An array instead of a join makes the planner use the primary key, whatever the statistics say.
-- No more than :bytes_max of payloads, unless the first one alone is larger. Only the end of the batch is left out, so
-- that nothing newer is taken before an older event of its record.
WHERE q.id = ANY (ARRAY(SELECT id FROM sized WHERE total <= CAST(:bytes_max AS bigint) OR place = 1))
RETURNING

-- event --
-- What a worker needs of an event.
    q.id, q.entity_type::text AS entity_type, q.source_entity_id, q.operation_type::text AS operation_type,
    -- One character more than the handlers read (twice BODY_BYTES_MAX) is enough for them to refuse it.
    CASE WHEN pg_column_size(q.validated_payload) < 65536 THEN q.validated_payload::text
         ELSE left(q.validated_payload::text, 8 * 1024 * 1024 + 1) END AS payload,
    q.attempt_count, q.max_retry_attempts, q.created_at

-- lock --
-- Take the chosen events by their row locks alone: they are the caller's until its transaction ends.
    -- Those that :bytes_max leaves out are locked as well, and nobody could take them until then.
    , (SELECT count(*) FROM mine) AS locked
FROM tds_sync_queue q
WHERE q.id = ANY (ARRAY(SELECT id FROM sized WHERE total <= CAST(:bytes_max AS bigint) OR place = 1))
  -- The statements that follow in this transaction are planned as usual.
  AND (SELECT set_config('enable_sort', 'on', true)) = 'on';

-- lost_piece --
-- The events of one piece of a batch that lost its lease: of the piece that lost it least often, then of the oldest.
WITH waiting AS (
    SELECT q.id, q.created_at, coalesce(q.processing_result -> 'lost' ->> 'piece', q.id::text) AS piece,
        CASE WHEN jsonb_typeof(q.processing_result -> 'lost' -> 'times') = 'number'
            THEN CAST(q.processing_result -> 'lost' ->> 'times' AS integer) ELSE 1 END AS times
    FROM tds_sync_queue q
    -- By the index on leases: this is read often, and mostly there are none.
    WHERE q.locked_by = 'lost lease'
      AND q.status = 'retry'
      AND q.next_retry_at <= now()
      AND q.entity_type::text = ANY (CAST(:entities AS text[]))
      AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
)
SELECT w.id FROM waiting w
WHERE w.piece = (SELECT piece FROM waiting ORDER BY times, created_at, id LIMIT 1);
