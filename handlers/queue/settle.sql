-- The ERP's queue, `tds_sync_queue`: claimed, settled, redriven and counted here; its structure is never changed.
-- Enum values are spelt as the ERP spells them, and kinds of record are compared as text, because comparing the
-- enum with a word that it does not have is an error.

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

-- complete --
-- Settle events as completed, provided :owner still holds them. Whoever is missing in the answer was lost.
-- An open row in the ERP's dead letter table is closed with it. The lease stays until it runs out, here and wherever an
-- event is settled: the ERP's own worker walks through a list of pending rows that it read a while ago, and asks of a
-- row nothing but whether it is leased. The fence is said in a way that no index serves and no
-- statistics: the planner would otherwise expect one row, and compare all that :owner ever held with all of :ids.
WITH done AS (
    UPDATE tds_sync_queue q
    SET status = 'completed',
        completed_at = clock_timestamp(),
        target_entity_id = r.target,
        processing_result = CAST(r.result AS jsonb),
        next_retry_at = NULL,
        error_message = NULL,
        error_code = NULL
    FROM unnest(CAST(:ids AS uuid[]), CAST(:targets AS text[]), CAST(:results AS text[])) AS r (id, target, result)
    WHERE q.id = r.id AND coalesce(q.status = 'processing' AND q.locked_by = :owner, false)
    RETURNING q.id
), closed AS (
    UPDATE tds_dead_letter_queue d
    SET resolved = true,
        resolved_at = clock_timestamp(),
        resolved_by = :owner,
        resolution_notes = 'completed after a redrive'
    WHERE d.sync_queue_id = ANY (CAST(:ids AS uuid[])) AND NOT d.resolved
      AND d.sync_queue_id IN (SELECT id FROM done)
)
SELECT id FROM done;

-- retry_later --
-- Let events wait before their next attempt: the pause doubles with each one, has a cap, and is spread by a quarter
-- either way so that they do not all come back at once. Who has no attempt left becomes a dead letter. Who waits for a
-- parent has as many waits as attempts, whatever its attempts were used up for: leases of workers that were killed are
-- not its fault. The lease stays (see `complete`), and is no hindrance to the next claim.
UPDATE tds_sync_queue q
SET status = CAST(CASE WHEN tried.times < q.max_retry_attempts THEN 'retry' ELSE 'dead_letter' END
                  AS tds_event_status),
    next_retry_at = CASE WHEN tried.times < q.max_retry_attempts THEN
        now() + make_interval(secs => (0.75 + 0.5 * random()) * least(
            CAST(:cap_seconds AS double precision),
            CAST(:base_seconds AS double precision) * power(2, least(tried.times, 30) - 1))) END,
    completed_at = NULL,
    processing_result = CAST(r.result AS jsonb)
        || CASE WHEN tried.waiting THEN jsonb_build_object('waits', tried.times) ELSE '{}' END,
    error_message = r.message,
    error_code = r.code
FROM unnest(CAST(:ids AS uuid[]), CAST(:results AS text[]), CAST(:messages AS text[]), CAST(:codes AS text[]))
     AS r (id, result, message, code)
JOIN tds_sync_queue before ON before.id = r.id
CROSS JOIN LATERAL (
    SELECT r.code = 'missing_parent' AS waiting,
        CASE
            WHEN r.code <> 'missing_parent' THEN before.attempt_count
            WHEN jsonb_typeof(before.processing_result -> 'waits') = 'number'
                THEN CAST(before.processing_result ->> 'waits' AS integer) + 1
            ELSE 1
        END AS times
) tried
WHERE q.id = r.id AND coalesce(q.status = 'processing' AND q.locked_by = :owner, false)
RETURNING q.id, q.status::text AS status;

-- bury --
-- Make events dead letters, provided :owner still holds them. They keep no completion time: nothing was completed. The
-- lease stays (see `complete`) until it runs out or somebody sends them back.
UPDATE tds_sync_queue q
SET status = 'dead_letter',
    next_retry_at = NULL,
    completed_at = NULL,
    processing_result = CAST(r.result AS jsonb),
    error_message = r.message,
    error_code = r.code
FROM unnest(CAST(:ids AS uuid[]), CAST(:results AS text[]), CAST(:messages AS text[]), CAST(:codes AS text[]))
     AS r (id, result, message, code)
WHERE q.id = r.id AND coalesce(q.status = 'processing' AND q.locked_by = :owner, false)
RETURNING q.id;

-- release --
-- Give back what :owner holds (only :ids where given), as if it had never been claimed: no attempt is burnt.
-- A planned retry time shows that the event came from a retry.
UPDATE tds_sync_queue q
SET status = CAST(CASE WHEN q.next_retry_at IS NULL THEN 'pending' ELSE 'retry' END AS tds_event_status),
    attempt_count = greatest(q.attempt_count - 1, 0),
    locked_by = NULL,
    lock_expires_at = NULL,
    started_at = NULL
WHERE q.status = 'processing' AND q.locked_by = :owner
  AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
RETURNING q.id;

-- expire_leases --
-- Take back events whose worker did not finish in time, with their attempt counted. Who has cost several workers
-- their lease is the likely reason and becomes a dead letter. Rows in use at this moment are left alone. Rows that
-- have been in processing for an hour without any lease were lost by the ERP's own worker.
WITH lost AS (
    SELECT q.id
    FROM tds_sync_queue q
    WHERE q.status = 'processing'
      AND (q.lock_expires_at <= now()
           OR (q.locked_by IS NULL AND coalesce(q.started_at, q.created_at) <= now() - interval '1 hour'))
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET status = CAST(CASE WHEN q.attempt_count < CAST(:lost_max AS integer) THEN 'retry' ELSE 'dead_letter' END
                  AS tds_event_status),
    next_retry_at = CASE WHEN q.attempt_count < CAST(:lost_max AS integer) THEN now() END,
    error_message = 'the lease of ' || coalesce(q.locked_by, 'a worker') || ' ran out before it was finished',
    error_code = 'lease_expired',
    locked_by = NULL,
    lock_expires_at = NULL
WHERE q.id = ANY (ARRAY(SELECT id FROM lost))
RETURNING q.id, q.status::text AS status;

-- refuse_unknown --
-- Bury pending events of a kind that no handler exists for: they would wait for ever.
WITH strange AS (
    SELECT q.id
    FROM tds_sync_queue q
    WHERE (q.status = 'pending' OR (q.status = 'retry' AND q.next_retry_at <= now()))
      AND (q.locked_by IS NULL OR q.lock_expires_at <= now())
      AND NOT q.entity_type::text = ANY (CAST(:entities AS text[]))
    ORDER BY q.id
    LIMIT 5000
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET status = 'dead_letter',
    next_retry_at = NULL,
    locked_by = NULL,
    lock_expires_at = NULL,
    processing_result = jsonb_build_object('class', 'permanent'),
    error_message = 'there is no handler for entity type ' || q.entity_type::text,
    error_code = 'unknown_type'
WHERE q.id = ANY (ARRAY(SELECT id FROM strange))
RETURNING q.id;

-- wake_children --
-- Let events try again at once that wait for one of these records, when every other record that they wait for has come
-- too since they were tried: who wakes for each of five parents has no attempt left for the last. What an event waits
-- for stands in its result. Where `runbook db adopt` made the index on that, nobody else's row is looked at, and the
-- status is asked for in a way that leads the planner to no other; elsewhere all that wait are read once. Children that
-- another worker is waking are left to it.
WITH index AS (
    SELECT EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('ix_tds_sync_queue_waiting_for') AND indisvalid
    ) AS is_there
), named AS (
    SELECT q.id
    FROM (SELECT DISTINCT key FROM unnest(CAST(:keys AS text[])) AS k (key)) k
    CROSS JOIN LATERAL (
        SELECT child.id
        FROM tds_sync_queue child
        WHERE child.error_code = 'missing_parent'
          AND (child.processing_result -> 'parents') ? k.key
          AND child.status::text = 'retry'
        OFFSET 0
    ) q
    WHERE (SELECT is_there FROM index)
    UNION
    SELECT child.id
    FROM tds_sync_queue child
    CROSS JOIN LATERAL jsonb_array_elements_text(child.processing_result -> 'parents') AS parent (key)
    WHERE child.status = 'retry' AND child.error_code = 'missing_parent'
      -- IS TRUE keeps this a look into a hash table for each child, whatever the planner believes about their number.
      AND (parent.key IN (SELECT unnest(CAST(:keys AS text[])))) IS TRUE
      AND NOT (SELECT is_there FROM index)
), waiting AS (
    SELECT q.id
    FROM tds_sync_queue q
    WHERE q.id = ANY (ARRAY(SELECT id FROM named))
      AND q.status = 'retry' AND q.error_code = 'missing_parent' AND q.next_retry_at > now()
      AND NOT EXISTS (
          SELECT FROM jsonb_array_elements_text(q.processing_result -> 'parents') AS parent (key)
          WHERE parent.key <> ALL (CAST(:keys AS text[]))
            AND NOT EXISTS (
                SELECT FROM tds_sync_queue came
                WHERE came.source_entity_id = parent.key
                  AND came.status = 'completed'
                  AND came.completed_at >= q.started_at
                OFFSET 0
            )
      )
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET next_retry_at = now()
WHERE q.id = ANY (ARRAY(SELECT id FROM waiting))
RETURNING q.id;

-- wake_overtaken --
-- Let those of :ids try again at once whose parents were completed while they were looked at: the call to wake them came
-- before they began to wait. To be asked once they wait for all to see.
WITH overtaken AS (
    SELECT q.id
    FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[]))
      AND q.status = 'retry' AND q.error_code = 'missing_parent' AND q.next_retry_at > now()
      AND jsonb_array_length(q.processing_result -> 'parents') > 0
      AND NOT EXISTS (
          SELECT FROM jsonb_array_elements_text(q.processing_result -> 'parents') AS parent (key)
          WHERE NOT EXISTS (
              SELECT FROM tds_sync_queue came
              WHERE came.source_entity_id = parent.key
                AND came.status = 'completed'
                AND came.completed_at >= q.started_at
              OFFSET 0
          )
      )
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET next_retry_at = now()
WHERE q.id = ANY (ARRAY(SELECT id FROM overtaken))
RETURNING q.id;

-- wake_arrived --
-- The same for whoever waits, in case the worker that brought a parent died before it could wake anybody: at most :limit
-- events are looked at, those first that would wait longest. The ten seconds are for a parent that was completed before
-- the child was claimed, and to be seen only after it was looked for.
WITH waiting AS MATERIALIZED (
    SELECT q.id, q.started_at, q.processing_result -> 'parents' AS parents
    FROM tds_sync_queue q
    WHERE q.status = 'retry' AND q.error_code = 'missing_parent' AND q.next_retry_at > now()
      AND jsonb_array_length(q.processing_result -> 'parents') > 0
    ORDER BY q.next_retry_at DESC
    LIMIT CAST(:limit AS bigint)
), arrived AS (
    SELECT q.id
    FROM waiting w
    JOIN tds_sync_queue q ON q.id = w.id
    WHERE q.status = 'retry'
      AND NOT EXISTS (
          SELECT FROM jsonb_array_elements_text(w.parents) AS parent (key)
          WHERE NOT EXISTS (
              SELECT FROM tds_sync_queue came
              WHERE came.source_entity_id = parent.key
                AND came.status = 'completed'
                AND came.completed_at >= w.started_at - interval '10 seconds'
              OFFSET 0
          )
      )
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET next_retry_at = now()
WHERE q.id = ANY (ARRAY(SELECT id FROM arrived)) AND q.status = 'retry'
RETURNING q.id;

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

-- payloads --
-- What these events carry, as text, and since when: for a record without a stamp that is its version.
SELECT id, validated_payload::text AS payload, created_at FROM tds_sync_queue WHERE id = ANY(CAST(:ids AS uuid[]));

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

-- states --
-- Where these events stand now.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.status::text AS status, q.attempt_count,
    q.error_code, q.error_message, q.started_at, q.completed_at, q.processing_result::text AS processing_result
FROM tds_sync_queue q
WHERE q.id = ANY (CAST(:ids AS uuid[]))
ORDER BY q.created_at, q.id;

-- dead_letters --
-- All dead letters, oldest first, without their payloads.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.created_at, q.attempt_count AS attempts,
    q.error_code, q.error_message
FROM tds_sync_queue q
WHERE q.status = 'dead_letter'
ORDER BY q.created_at, q.id;

-- counts --
-- How many events stand in each status.
SELECT q.status::text AS status, count(*) AS events
FROM tds_sync_queue q
GROUP BY q.status;

-- outcomes_since --
-- What became of the events that arrived since :since, apart from :excluding, by kind of record. The unit is one
-- record, by the first of its events that came to rest: a record that fails again and again is one failure. An
-- unfinished record older than :late_seconds is late. Digits in the samples are masked, so that they repeat.
WITH arrived AS (
    SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id, q.created_at, q.error_message,
        q.status = 'completed' AS completed,
        q.status IN ('failed', 'dead_letter') AS failed
    FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:since AS timestamptz) AND q.id <> ALL (CAST(:excluding AS uuid[]))
), first AS (
    SELECT DISTINCT ON (a.raw_type, a.source_entity_id)
        a.raw_type, a.created_at, a.error_message, a.completed, a.failed
    FROM arrived a
    ORDER BY a.raw_type, a.source_entity_id, (a.completed OR a.failed) DESC, a.created_at, a.id
), judged AS (
    SELECT f.raw_type, f.error_message, f.completed, f.failed,
        NOT f.completed AND NOT f.failed
            AND f.created_at <= clock_timestamp() - make_interval(secs => CAST(:late_seconds AS double precision))
            AS late
    FROM first f
)
SELECT j.raw_type,
    count(*) FILTER (WHERE j.completed) AS completed,
    count(*) FILTER (WHERE j.failed) AS failed,
    count(*) FILTER (WHERE NOT j.completed AND NOT j.failed AND NOT j.late) AS open,
    count(*) FILTER (WHERE j.late) AS late,
    coalesce((array_agg(DISTINCT left(regexp_replace(j.error_message, '[0-9]+', '0', 'g'), 500))
              FILTER (WHERE j.failed AND j.error_message IS NOT NULL))[1:50], '{}') AS error_samples
FROM judged j
GROUP BY j.raw_type
ORDER BY j.raw_type;

-- in_other_hands --
-- Newer events of the same records as :ids that somebody else has applied, or has in hand at this moment: whoever completes
-- an event of ours says so in its result, and the ERP's own workers say nothing. To be asked when the rows of :ids are
-- locked: what others have written until then, they had in hand before. Each record is asked about once, from its oldest
-- event on, and of a long history of others its end is enough. Workers of ours, whose tokens look like :ours, may
-- be at a newer event when the older one was the later to come in: they go by the stamps, and need not be waited for.
WITH ours AS (
    SELECT DISTINCT ON (q.entity_type, q.source_entity_id) q.entity_type, q.source_entity_id, q.created_at, q.id
    FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY q.entity_type, q.source_entity_id, q.created_at, q.id
)
SELECT other.id, other.entity_type::text AS entity_type, other.source_entity_id,
    other.operation_type::text AS operation_type, other.validated_payload::text AS payload, other.attempt_count,
    other.max_retry_attempts, other.created_at, other.locked_by, other.status <> 'completed' AS in_hand
FROM ours
CROSS JOIN LATERAL (
    SELECT theirs.*
    FROM (
        SELECT o.*
        FROM tds_sync_queue o
        WHERE o.entity_type = ours.entity_type
          AND o.source_entity_id = ours.source_entity_id
          AND (o.created_at, o.id) > (ours.created_at, ours.id)
          AND ((o.status = 'completed' AND o.processing_result ->> 'worker' IS NULL)
               OR (o.status IN ('pending', 'processing') AND o.lock_expires_at > now() AND o.locked_by <> :owner
                   AND o.locked_by !~ CAST(:ours AS text)))
        OFFSET 0
    ) theirs
    ORDER BY theirs.status = 'completed', theirs.created_at DESC, theirs.id DESC
    LIMIT 50
) other;
