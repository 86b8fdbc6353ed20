-- seen --
-- The newest :rows_max events of a window: what came, was taken, is open, or was redriven by a release.
-- The synthetic event is left out.
WITH found AS (
    -- Four parts without an event in common, each bounded by an index: no event is looked up by its id.
    (SELECT q.id, q.entity_type, q.status, q.created_at, q.started_at, q.completed_at
     FROM tds_sync_queue q
     WHERE q.created_at >= CAST(:since AS timestamptz) AND q.source_entity_id <> CAST(:synthetic AS text)
     ORDER BY q.created_at DESC LIMIT CAST(:rows_max AS bigint))
    UNION ALL
    -- Our workers leave the time of their last lease.
    SELECT t.id, t.entity_type, t.status, t.created_at, t.started_at, t.completed_at
    FROM (SELECT q.id, q.entity_type, q.status, q.created_at, q.started_at, q.completed_at
          FROM tds_sync_queue q
          WHERE q.lock_expires_at >= CAST(:since AS timestamptz) AND q.source_entity_id <> CAST(:synthetic AS text)
          ORDER BY q.lock_expires_at DESC LIMIT CAST(:rows_max AS bigint)) t
    WHERE t.created_at < CAST(:since AS timestamptz)
    UNION ALL
    (SELECT q.id, q.entity_type, q.status, q.created_at, q.started_at, q.completed_at
     FROM tds_sync_queue q
     WHERE q.status IN ('pending', 'retry', 'processing') AND q.created_at < CAST(:since AS timestamptz)
       AND (q.lock_expires_at < CAST(:since AS timestamptz)) IS NOT FALSE
       AND q.source_entity_id <> CAST(:synthetic AS text)
     LIMIT CAST(:rows_max AS bigint))
    UNION ALL
    SELECT q.id, q.entity_type, q.status, q.created_at, q.started_at, q.completed_at
    FROM runbook.release_event e
    JOIN tds_sync_queue q ON q.id = e.event_id
    WHERE e.release_id = CAST(:release_id AS text) AND e.redriven_at IS NOT NULL
      AND q.status NOT IN ('pending', 'retry', 'processing') AND q.created_at < CAST(:since AS timestamptz)
      AND (q.lock_expires_at < CAST(:since AS timestamptz)) IS NOT FALSE
), seen AS MATERIALIZED (
    SELECT q.entity_type::text AS raw_type, q.status::text AS status, q.created_at, q.started_at,
        e.redriven_at IS NOT NULL AS replayed,
        -- A replayed event has waited since it was redriven, not since it came.
        greatest(q.created_at, e.redriven_at) AS arrived,
        CASE WHEN q.status = 'completed' THEN greatest(q.created_at, q.completed_at)
             WHEN q.status IN ('failed', 'dead_letter') THEN greatest(q.created_at, q.started_at) END AS ended,
        CASE WHEN q.status = 'completed'
             THEN greatest(extract(epoch FROM q.completed_at - q.started_at), 0)::float8 END AS applying,
        greatest(extract(epoch FROM q.started_at - greatest(q.created_at, e.redriven_at)), 0)::float8 AS waiting
    FROM found q
    LEFT JOIN runbook.release_event e ON e.release_id = CAST(:release_id AS text) AND e.event_id = q.id
)

-- statuses --
-- How many events of the window stand in each status.
SELECT s.status, count(*) AS events
FROM seen s
WHERE s.created_at >= CAST(:since AS timestamptz) OR s.replayed OR s.ended >= CAST(:since AS timestamptz)
   OR s.ended IS NULL
GROUP BY s.status ORDER BY s.status;

-- processing --
-- How long events took from claim to completion, and how long they waited for the claim, by type and in all.
SELECT coalesce(s.raw_type, '') AS raw_type, count(*) AS completed,
    avg(s.applying)::float8 AS applying_average,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY s.applying) AS applying_p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY s.applying) AS applying_p95,
    max(s.applying) AS applying_max,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY s.waiting) AS waiting_p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY s.waiting) AS waiting_p95
FROM seen s
WHERE s.status = 'completed' AND s.ended >= CAST(:since AS timestamptz) AND s.applying IS NOT NULL
GROUP BY GROUPING SETS ((s.raw_type), ())
HAVING count(*) > 0;

-- by_type --
-- What became of each kind of record in the window, replayed and live events apart.
SELECT s.raw_type, s.replayed,
    count(*) FILTER (WHERE s.status = 'completed') AS completed,
    count(*) FILTER (WHERE s.status IN ('failed', 'dead_letter')) AS failed,
    count(*) FILTER (WHERE s.status IN ('pending', 'processing', 'retry')) AS open
FROM seen s
WHERE s.replayed OR s.created_at >= CAST(:since AS timestamptz)
GROUP BY 1, 2 ORDER BY 1, 2;

-- course --
-- Success, depth and age at the ends of :buckets equal parts of the time from :since to :until.
, step AS (
    SELECT CAST(:since AS timestamptz) AS since,
        extract(epoch FROM CAST(:until AS timestamptz) - CAST(:since AS timestamptz))::float8
            / CAST(:buckets AS integer) AS seconds
), placed AS (
    SELECT s.status, s.arrived, s.ended,
        floor(extract(epoch FROM s.arrived - step.since) / step.seconds) AS came_in,
        floor(extract(epoch FROM s.ended - step.since) / step.seconds) AS ended_in
    FROM seen s CROSS JOIN step
), done AS (
    SELECT p.ended_in AS n, count(*) FILTER (WHERE p.status = 'completed') AS completed,
        count(*) FILTER (WHERE p.status <> 'completed') AS failed
    FROM placed p
    WHERE p.ended_in BETWEEN 0 AND CAST(:buckets AS integer) - 1
    GROUP BY p.ended_in
), spanning AS MATERIALIZED (
    -- Only these are open at the end of a part, and they are few.
    SELECT p.arrived, p.came_in, p.ended_in
    FROM placed p
    WHERE p.ended_in IS NULL OR p.ended_in > p.came_in
)
SELECT step.since + make_interval(secs => (part.n + 1) * step.seconds) AS at,
    coalesce(done.completed, 0) AS completed, coalesce(done.failed, 0) AS failed, open.events AS open, open.oldest
FROM step
CROSS JOIN generate_series(0, CAST(:buckets AS integer) - 1) AS part (n)
LEFT JOIN done ON done.n = part.n
CROSS JOIN LATERAL (
    SELECT count(*) AS events, min(s.arrived) AS oldest
    FROM spanning s
    WHERE s.came_in <= part.n AND (s.ended_in IS NULL OR s.ended_in > part.n)
) open
ORDER BY part.n;

-- errors --
-- The errors that stand in the queue now, the most common first; equal beginnings are one error.
SELECT q.entity_type::text AS raw_type, q.status::text AS status, q.error_code, left(q.error_message, 300) AS error,
       count(*) AS events, max(coalesce(q.started_at, q.created_at)) AS last_at
FROM tds_sync_queue AS q
WHERE q.status IN ('failed', 'dead_letter', 'retry') AND q.source_entity_id <> CAST(:synthetic AS text)
GROUP BY 1, 2, 3, 4 ORDER BY events DESC, 1, 2, 3, 4 LIMIT 500;

-- letters --
-- The dead letters that stand in the queue now, by kind of record and error code.
SELECT q.entity_type::text AS raw_type, q.error_code, count(*) AS events, min(q.created_at) AS oldest_at,
    max(q.attempt_count) AS attempts_max
FROM tds_sync_queue q
WHERE q.status = 'dead_letter' AND q.source_entity_id <> CAST(:synthetic AS text)
GROUP BY 1, 2 ORDER BY events DESC, 1, 2 LIMIT 50;

-- planned --
-- The dead letters of the plan, by kind and by what became of them.
SELECT entity_type, CASE WHEN batch IS NULL THEN 'left' WHEN settled_at IS NULL THEN 'open'
                         WHEN status = 'completed' THEN 'completed' ELSE 'failed' END AS fate,
       count(*) AS events
FROM runbook.release_event WHERE release_id = :release_id
GROUP BY 1, 2 ORDER BY 1, 2;

-- requested --
-- Why a release was requested.
SELECT r.plan ->> 'reason' AS reason FROM runbook.release r WHERE r.id = :release_id;

-- quarantined --
-- The revisions that nobody may release in an environment, newest first.
SELECT q.revision, q.release_id, q.reason, q.since
FROM runbook.quarantine q
WHERE q.environment = :environment AND q.lifted_at IS NULL
ORDER BY q.since DESC LIMIT 20;

-- moments --
-- When each phase of the releases of an environment began, in a window.
SELECT p.release_id, p.phase::text AS phase, p.started_at AS at
FROM runbook.phase_record p
JOIN runbook.release r ON r.id = p.release_id
WHERE r.environment = :environment AND p.started_at >= CAST(:since AS timestamptz)
  AND p.started_at <= CAST(:until AS timestamptz)
ORDER BY p.started_at LIMIT 40;
