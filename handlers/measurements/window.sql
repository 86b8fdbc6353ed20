-- limit_time --
-- No query of this transaction runs longer than :milliseconds: a look must not slow the queue down.
SELECT set_config('statement_timeout', CAST(:milliseconds AS text), true),
    -- A column of the ERP without a time zone holds UTC.
    set_config('TimeZone', 'UTC', true);

-- window --
-- What ended, and what failed, in the last hour, since :since and in the last minutes. The synthetic event is left out.
WITH seen AS (
    -- By index: what came since then, the newest :rows_max events of it.
    (SELECT q.id, q.status::text AS status, q.created_at, q.started_at, q.completed_at, q.error_code
     FROM tds_sync_queue q
     WHERE q.created_at >= CAST(:since AS timestamptz) AND q.source_entity_id <> CAST(:synthetic AS text)
     ORDER BY q.created_at DESC
     LIMIT CAST(:rows_max AS bigint))
    UNION ALL
    -- What came before and was taken since then: of the newest :rows_max leases, which our workers leave.
    SELECT t.id, t.status, t.created_at, t.started_at, t.completed_at, t.error_code
    FROM (SELECT q.id, q.status::text AS status, q.created_at, q.started_at, q.completed_at, q.error_code
          FROM tds_sync_queue q
          WHERE q.lock_expires_at >= CAST(:since AS timestamptz) AND q.source_entity_id <> CAST(:synthetic AS text)
          ORDER BY q.lock_expires_at DESC
          LIMIT CAST(:rows_max AS bigint)) t
    WHERE t.created_at < CAST(:since AS timestamptz)
      AND (t.started_at >= CAST(:since AS timestamptz) OR t.completed_at >= CAST(:since AS timestamptz))
), rested AS (
    SELECT s.status, s.status = 'completed' AS good, s.status IN ('failed', 'dead_letter') AS bad,
        -- Waiting for a parent is no error.
        s.status = 'retry' AND s.error_code IS DISTINCT FROM 'missing_parent' AS retries,
        -- A time before the event came was written without a zone: it says nothing.
        greatest(s.created_at, CASE WHEN s.status = 'completed' THEN s.completed_at ELSE s.started_at END) AS at,
        CASE WHEN s.status = 'completed'
             THEN greatest(extract(epoch FROM s.completed_at - s.started_at), 0)::float8 END AS seconds
    FROM seen s
    WHERE s.status IN ('completed', 'failed', 'dead_letter', 'retry')
      -- What healing has sent back is no live traffic.
      AND NOT EXISTS (SELECT FROM unnest(CAST(:healed AS uuid[])) AS h (id) WHERE h.id = s.id)
)
SELECT count(*) FILTER (WHERE good) AS completed,
    count(*) FILTER (WHERE bad) AS failed,
    count(*) FILTER (WHERE r.status = 'dead_letter') AS dead,
    count(*) FILTER (WHERE retries) AS retries,
    count(*) FILTER (WHERE good AND r.at >= CAST(:hour AS timestamptz)) AS completed_1h,
    count(*) FILTER (WHERE bad AND r.at >= CAST(:hour AS timestamptz)) AS failed_1h,
    count(*) FILTER (WHERE r.status = 'dead_letter' AND r.at >= CAST(:hour AS timestamptz)) AS dead_1h,
    count(*) FILTER (WHERE retries AND r.at >= CAST(:hour AS timestamptz)) AS retries_1h,
    count(*) FILTER (WHERE (good OR bad) AND r.at >= CAST(:minutes AS timestamptz)) AS lately,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY r.seconds) FILTER (WHERE r.at >= CAST(:hour AS timestamptz)) AS p95,
    max(r.seconds) FILTER (WHERE r.at >= CAST(:hour AS timestamptz)) AS slowest,
    (SELECT count(*) FROM seen) >= CAST(:rows_max AS bigint) AS is_cut
FROM rested r
WHERE r.at >= CAST(:since AS timestamptz);

-- before --
-- What became of the events that came from :since to :until, the newest :rows_max of them.
SELECT count(*) FILTER (WHERE b.status = 'completed') AS completed,
    count(*) FILTER (WHERE b.status IN ('failed', 'dead_letter')) AS failed
FROM (
    SELECT q.status::text AS status
    FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:since AS timestamptz) AND q.created_at < CAST(:until AS timestamptz)
      AND q.source_entity_id <> CAST(:synthetic AS text)
    ORDER BY q.created_at DESC
    LIMIT CAST(:rows_max AS bigint)
) b;

-- waiting --
-- What is open in the queue, and since when the oldest event that could be taken waits.
SELECT count(*) AS open,
    count(*) FILTER (WHERE q.status = 'pending') AS pending,
    count(*) FILTER (WHERE q.status = 'retry') AS retry,
    count(*) FILTER (WHERE q.status = 'processing') AS processing,
    min(CASE WHEN q.status = 'retry' AND q.next_retry_at <= clock_timestamp() THEN q.next_retry_at
             -- A replayed event has waited since it was redriven, not since it came.
             WHEN q.status = 'pending' THEN greatest(q.created_at, sent.at) END) AS oldest
FROM tds_sync_queue q
LEFT JOIN (
    SELECT r.event_id, max(r.at) AS at
    FROM (
        SELECT e.event_id, e.redriven_at AS at FROM runbook.release_event e WHERE e.redriven_at IS NOT NULL
        UNION ALL
        SELECT h.event_id, h.at
        FROM unnest(CAST(:healed AS uuid[]), CAST(:healed_at AS timestamptz[])) AS h (event_id, at)
    ) r
    GROUP BY r.event_id
) sent ON sent.event_id = q.id
WHERE q.status IN ('pending', 'retry', 'processing') AND q.source_entity_id <> CAST(:synthetic AS text);
