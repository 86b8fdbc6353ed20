-- complete --
-- Settle events as completed, provided :owner still holds them. An event missing in the answer was lost.
WITH done AS (
    -- locked_by and lock_expires_at stay until the lease expires, here and wherever an event is settled. The ERP's own
    -- worker goes through a list of pending rows that it read earlier, and checks nothing but the lease.
    UPDATE tds_sync_queue q
    SET status = 'completed',
        -- Without a lease this is the only change of the event: what its claim would have written comes with it.
        locked_by = :owner,
        lock_expires_at = CASE WHEN CAST(:leased AS boolean) THEN q.lock_expires_at
            ELSE now() + make_interval(secs => CAST(:lease_seconds AS double precision)) END,
        started_at = CASE WHEN CAST(:leased AS boolean) THEN q.started_at ELSE now() END,
        attempt_count = q.attempt_count + CASE WHEN CAST(:leased AS boolean) THEN 0 ELSE 1 END,
        completed_at = clock_timestamp(),
        target_entity_id = r.target,
        -- What failed before stays told.
        processing_result = CAST(r.result AS jsonb) || CASE WHEN q.processing_result ? 'attempts'
            THEN jsonb_build_object('admitted', q.processing_result -> 'admitted',
                                    'attempts', q.processing_result -> 'attempts') ELSE '{}' END,
        next_retry_at = NULL,
        error_message = NULL,
        error_code = NULL
    FROM unnest(CAST(:ids AS uuid[]), CAST(:targets AS text[]), CAST(:results AS text[])) AS r (id, target, result)
    -- coalesce hides the fence from indexes and statistics. Otherwise the planner expects one row, and compares all
    -- that :owner ever held with all of :ids.
    WHERE q.id = r.id
      AND coalesce(CASE WHEN CAST(:leased AS boolean) THEN q.status = 'processing' AND q.locked_by = :owner
                        -- The rows are locked by this transaction.
                        ELSE q.status IN ('pending', 'retry') END, false)
    RETURNING q.id
), closed AS (
    -- An open row in the ERP's own dead letter table is closed with the event.
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
-- Let events wait before they are tried again. Without an attempt left, or after too long a wait, they are buried.
UPDATE tds_sync_queue q
SET status = CAST(CASE WHEN plan.is_over THEN 'dead_letter' ELSE 'retry' END AS tds_event_status),
    locked_by = :owner,
    lock_expires_at = CASE WHEN CAST(:leased AS boolean) THEN q.lock_expires_at
        ELSE now() + make_interval(secs => CAST(:lease_seconds AS double precision)) END,
    started_at = CASE WHEN CAST(:leased AS boolean) THEN q.started_at ELSE now() END,
    -- A wait costs no attempt.
    attempt_count = CASE WHEN r.waits THEN greatest(attempt.number - 1, 0) ELSE attempt.number END,
    -- Exponential backoff with a cap. The jitter of a quarter keeps events from coming back all at once.
    next_retry_at = CASE WHEN NOT plan.is_over THEN least(plan.ends_at, now() + make_interval(secs =>
        (0.75 + 0.5 * random()) * least(
            CAST(:cap_seconds AS double precision),
            CAST(:base_seconds AS double precision) * power(2, least(plan.times, 30) - 1)))) END,
    completed_at = NULL,
    processing_result = said.result || past.told || CASE WHEN r.waits
        THEN jsonb_build_object('waits', plan.times, 'waiting_since', extract(epoch FROM plan.since)) ELSE '{}' END,
    error_message = r.message,
    error_code = r.code
FROM unnest(CAST(:ids AS uuid[]), CAST(:results AS text[]), CAST(:messages AS text[]), CAST(:codes AS text[]),
        CAST(:waits AS boolean[])) AS r (id, result, message, code, waits)
CROSS JOIN LATERAL (SELECT CAST(r.result AS jsonb) AS result) said
JOIN tds_sync_queue before ON before.id = r.id
CROSS JOIN LATERAL (
    -- When a worker first took it, and the last ten attempts that failed: a later result does not hide them.
    SELECT jsonb_build_object(
        'admitted', coalesce(before.processing_result -> 'admitted',
                             to_jsonb(CASE WHEN CAST(:leased AS boolean) THEN before.started_at ELSE now() END)),
        'attempts', jsonb_path_query_array(
            CASE WHEN jsonb_typeof(before.processing_result -> 'attempts') = 'array'
                THEN before.processing_result -> 'attempts' ELSE '[]' END
            || CASE WHEN r.waits THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
                'at', now(), 'class', said.result -> 'class', 'code', r.code,
                'fingerprint', said.result -> 'fingerprint', 'revision', said.result -> 'revision')) END,
            '$[last - 9 to last]')) AS told
) past
CROSS JOIN LATERAL (
    -- A lease has counted the attempt already.
    SELECT before.attempt_count + CASE WHEN CAST(:leased AS boolean) THEN 0 ELSE 1 END AS number
) attempt
LEFT JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM jsonb_array_elements_text(said.result -> 'parents') AS parent (key)
        CROSS JOIN LATERAL (
            SELECT FROM tds_sync_queue o
            WHERE o.source_entity_id = parent.key
              AND o.status IN ('pending', 'processing', 'retry')
              -- Events of one type that wait for each other would wait for ever: they are no hope.
              AND NOT (o.entity_type = before.entity_type
                       AND (o.id = ANY (CAST(:ids AS uuid[])) OR (o.status = 'retry' AND o.error_code = r.code)))
            -- OFFSET 0 keeps this a lookup in the index on records.
            OFFSET 0
        ) o
    ) AS is_open
    WHERE r.waits
) parents ON true
CROSS JOIN LATERAL (
    SELECT CASE
            WHEN NOT r.waits THEN attempt.number
            WHEN jsonb_typeof(before.processing_result -> 'waits') = 'number'
                THEN CAST(before.processing_result ->> 'waits' AS integer) + 1
            ELSE 1
        END AS times,
        -- The time runs only while no event of a parent is open, and begins anew when it waits for others.
        CASE
            WHEN r.waits AND NOT parents.is_open
                AND jsonb_typeof(before.processing_result -> 'waiting_since') = 'number'
                AND before.processing_result -> 'parents' IS NOT DISTINCT FROM said.result -> 'parents'
                THEN to_timestamp(CAST(before.processing_result ->> 'waiting_since' AS double precision))
            ELSE now()
        END AS since
) tried
CROSS JOIN LATERAL (
    SELECT tried.times, tried.since,
        -- Events whose parent is open are bounded by that event alone.
        CASE WHEN r.waits AND NOT parents.is_open
            THEN tried.since + make_interval(secs => CAST(:wait_seconds AS double precision)) END AS ends_at,
        CASE
            WHEN NOT r.waits THEN tried.times >= before.max_retry_attempts
            ELSE NOT parents.is_open
                AND tried.since + make_interval(secs => CAST(:wait_seconds AS double precision)) <= now()
        END AS is_over
) plan
WHERE q.id = r.id
  AND coalesce(CASE WHEN CAST(:leased AS boolean) THEN q.status = 'processing' AND q.locked_by = :owner
                    ELSE q.status IN ('pending', 'retry') END, false)
RETURNING q.id, q.status::text AS status;

-- bury --
-- Make events dead letters, provided :owner still holds them.
UPDATE tds_sync_queue q
SET status = 'dead_letter',
    locked_by = :owner,
    lock_expires_at = CASE WHEN CAST(:leased AS boolean) THEN q.lock_expires_at
        ELSE now() + make_interval(secs => CAST(:lease_seconds AS double precision)) END,
    started_at = CASE WHEN CAST(:leased AS boolean) THEN q.started_at ELSE now() END,
    attempt_count = q.attempt_count + CASE WHEN CAST(:leased AS boolean) THEN 0 ELSE 1 END,
    next_retry_at = NULL,
    -- Nothing was completed.
    completed_at = NULL,
    -- As in `retry_later`: when a worker first took it, and the last ten attempts that failed.
    processing_result = said.result || jsonb_build_object(
        'admitted', coalesce(q.processing_result -> 'admitted',
                             to_jsonb(CASE WHEN CAST(:leased AS boolean) THEN q.started_at ELSE now() END)),
        'attempts', jsonb_path_query_array(
            CASE WHEN jsonb_typeof(q.processing_result -> 'attempts') = 'array'
                THEN q.processing_result -> 'attempts' ELSE '[]' END
            || jsonb_build_array(jsonb_build_object(
                'at', now(), 'class', said.result -> 'class', 'code', r.code,
                'fingerprint', said.result -> 'fingerprint', 'revision', said.result -> 'revision')),
            '$[last - 9 to last]')),
    error_message = r.message,
    error_code = r.code
FROM unnest(CAST(:ids AS uuid[]), CAST(:results AS text[]), CAST(:messages AS text[]), CAST(:codes AS text[]))
     AS r (id, result, message, code)
CROSS JOIN LATERAL (SELECT CAST(r.result AS jsonb) AS result) said
WHERE q.id = r.id
  AND coalesce(CASE WHEN CAST(:leased AS boolean) THEN q.status = 'processing' AND q.locked_by = :owner
                    ELSE q.status IN ('pending', 'retry') END, false)
RETURNING q.id;

-- release --
-- Give back what :owner holds (only :ids where given), as if it had never been claimed: no attempt is burnt.
UPDATE tds_sync_queue q
-- A planned retry time shows that the event was claimed as a retry.
SET status = CAST(CASE WHEN q.next_retry_at IS NULL THEN 'pending' ELSE 'retry' END AS tds_event_status),
    attempt_count = greatest(q.attempt_count - 1, 0),
    -- What had lost its lease before stays in its piece.
    locked_by = CASE WHEN q.error_code = 'lease_expired' AND q.next_retry_at IS NOT NULL THEN 'lost lease' END,
    lock_expires_at = CASE WHEN q.error_code = 'lease_expired' AND q.next_retry_at IS NOT NULL THEN now() END,
    started_at = NULL
WHERE q.status = 'processing' AND q.locked_by = :owner
  AND (CAST(:ids AS uuid[]) IS NULL OR q.id = ANY (CAST(:ids AS uuid[])))
RETURNING q.id;

-- expire_leases --
-- Take back events whose worker did not finish in time, in pieces of a tenth of their batch. It costs no attempt.
WITH lost AS (
    SELECT q.id, q.locked_by, q.started_at, q.created_at, q.attempt_count, q.max_retry_attempts,
        -- The ERP's own worker counts an attempt only when it fails: one that is lost is counted here.
        coalesce(q.locked_by, '') !~ CAST(:ours AS text) AS is_theirs,
        CASE WHEN jsonb_typeof(q.processing_result) = 'object' THEN q.processing_result ELSE '{}' END AS result
    FROM tds_sync_queue q
    WHERE q.status = 'processing'
      AND (q.lock_expires_at <= now()
           -- In processing for an hour without a lease: the ERP's own worker has lost it.
           OR (num_nulls(q.locked_by, q.lock_expires_at) > 0
               AND coalesce(q.started_at, q.created_at) <= now() - interval '1 hour'))
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
), batches AS (
    -- One claim has one owner and one time.
    SELECT l.id, l.result, concat(l.locked_by, ' ', extract(epoch FROM l.started_at)) AS lease,
        l.is_theirs, l.attempt_count, l.max_retry_attempts,
        count(*) OVER batch AS together,
        row_number() OVER (batch ORDER BY l.created_at, l.id) - 1 AS place
    FROM lost l
    WINDOW batch AS (PARTITION BY l.locked_by, l.started_at)
), pieces AS (
    SELECT b.id, b.result, b.together,
        b.lease || '/' || b.place / CAST(ceil(b.together / 10.0) AS bigint) AS piece,
        CASE WHEN b.is_theirs THEN b.attempt_count + 1 ELSE greatest(b.attempt_count - 1, 0) END AS attempts,
        CASE WHEN b.is_theirs THEN b.attempt_count + 1 >= b.max_retry_attempts ELSE false END AS is_used_up,
        1 + CASE WHEN jsonb_typeof(b.result -> 'lost' -> 'times') = 'number'
            THEN CAST(b.result -> 'lost' ->> 'times' AS integer) ELSE 0 END AS times,
        -- Only an event that was alone in its batch may be the cause.
        CASE WHEN b.together = 1 THEN 1 ELSE 0 END
            + CASE WHEN jsonb_typeof(b.result -> 'lost' -> 'alone') = 'number'
                THEN CAST(b.result -> 'lost' ->> 'alone' AS integer) ELSE 0 END AS alone
    FROM batches b
), ends AS (
    SELECT p.*, p.is_used_up OR p.alone >= CAST(:alone_max AS integer) AS is_over FROM pieces p
)
UPDATE tds_sync_queue q
SET status = CAST(CASE WHEN e.is_over THEN 'dead_letter' ELSE 'retry' END AS tds_event_status),
    attempt_count = e.attempts,
    next_retry_at = CASE WHEN NOT e.is_over THEN now() END,
    processing_result = e.result || jsonb_build_object('lost', jsonb_build_object(
        'times', e.times, 'alone', e.alone, 'together', e.together, 'piece', e.piece)),
    error_message = 'the lease of ' || coalesce(q.locked_by, 'a worker') || ' ran out before it was finished'
        || CASE WHEN NOT e.is_over THEN ''
                WHEN e.is_used_up THEN ', in attempt ' || e.attempts || ' of ' || q.max_retry_attempts
                ELSE ', for the ' || e.alone || 'th time with no other event in the batch' END,
    error_code = 'lease_expired',
    -- The lease is free, and marks the event: a claim takes it only with its piece.
    locked_by = CASE WHEN NOT e.is_over THEN 'lost lease' END,
    lock_expires_at = CASE WHEN NOT e.is_over THEN now() END
FROM ends e
WHERE q.id = e.id
RETURNING q.id, q.status::text AS status;

-- refuse_unknown --
-- Bury due events of an entity type without a handler: they would wait permanently.
WITH RECURSIVE kinds AS (
    -- Every type in the queue, by one index probe each.
    (SELECT q.entity_type FROM tds_sync_queue q ORDER BY q.entity_type LIMIT 1)
    UNION ALL
    SELECT (
        SELECT q.entity_type FROM tds_sync_queue q
        WHERE q.entity_type > k.entity_type ORDER BY q.entity_type LIMIT 1
    )
    FROM kinds k
    WHERE k.entity_type IS NOT NULL
), unknown_kinds AS MATERIALIZED (
    -- Compared as text: a word that the ERP's enum does not have would be an error.
    SELECT k.entity_type FROM kinds k WHERE NOT k.entity_type::text = ANY (CAST(:entities AS text[]))
), unknown AS MATERIALIZED (
    -- Where every type has a handler nothing is read.
    SELECT of_kind.id
    FROM unknown_kinds k
    CROSS JOIN LATERAL (
        SELECT q.id
        FROM tds_sync_queue q
        WHERE q.entity_type = k.entity_type
          AND (q.status = 'pending' OR (q.status = 'retry' AND q.next_retry_at <= now()))
          -- The lease is free, as in claim.sql.
          AND (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
        ORDER BY q.id
        LIMIT 5000
        FOR UPDATE OF q SKIP LOCKED
    ) of_kind
)
UPDATE tds_sync_queue q
SET status = 'dead_letter',
    next_retry_at = NULL,
    locked_by = NULL,
    lock_expires_at = NULL,
    processing_result = jsonb_build_object('class', 'permanent'),
    error_message = 'there is no handler for entity type ' || q.entity_type::text,
    error_code = 'unknown_type'
WHERE q.id = ANY (ARRAY(SELECT id FROM unknown))
RETURNING q.id;
