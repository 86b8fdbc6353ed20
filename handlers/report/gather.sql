-- processing --
-- How long events took from claim to completion, and how long they waited for the claim.
SELECT done.raw_type, count(*) AS completed,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY done.applying) AS applying_p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY done.applying) AS applying_p95,
       max(done.applying) AS applying_max,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY done.waiting) AS waiting_p50,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY done.waiting) AS waiting_p95
FROM (
    SELECT q.entity_type::text AS raw_type,
           greatest(extract(epoch FROM q.completed_at - q.started_at), 0)::float8 AS applying,
           -- A replayed event has waited since it was redriven, not since it arrived.
           greatest(extract(epoch FROM q.started_at - greatest(q.created_at, e.redriven_at)), 0)::float8 AS waiting
    FROM tds_sync_queue AS q
    LEFT JOIN runbook.release_event AS e ON e.release_id = :release_id AND e.event_id = q.id
    WHERE q.status = 'completed' AND q.completed_at >= :since AND q.started_at IS NOT NULL
) AS done
GROUP BY done.raw_type ORDER BY done.raw_type;

-- by_type --
-- What became of each kind of record since the release began, replayed and live events apart.
SELECT q.entity_type::text AS raw_type, e.redriven_at IS NOT NULL AS replayed,
       count(*) FILTER (WHERE q.status = 'completed') AS completed,
       count(*) FILTER (WHERE q.status IN ('failed', 'dead_letter')) AS failed,
       count(*) FILTER (WHERE q.status IN ('pending', 'processing', 'retry')) AS open
FROM tds_sync_queue AS q
LEFT JOIN runbook.release_event AS e ON e.release_id = :release_id AND e.event_id = q.id
WHERE e.redriven_at IS NOT NULL OR q.created_at >= :since
GROUP BY 1, 2 ORDER BY 1, 2;

-- errors --
-- The errors that stand in the queue now, the most common first; equal beginnings are one error.
SELECT q.entity_type::text AS raw_type, q.status::text AS status, q.error_code, left(q.error_message, 300) AS error,
       count(*) AS events
FROM tds_sync_queue AS q
WHERE q.status IN ('failed', 'dead_letter', 'retry')
GROUP BY 1, 2, 3, 4 ORDER BY events DESC, 1, 2, 3, 4 LIMIT 500;

-- planned --
-- The dead letters of the plan, by kind and by what became of them.
SELECT entity_type, CASE WHEN batch IS NULL THEN 'left' WHEN settled_at IS NULL THEN 'open'
                         WHEN status = 'completed' THEN 'completed' ELSE 'failed' END AS fate,
       count(*) AS events
FROM runbook.release_event WHERE release_id = :release_id
GROUP BY 1, 2 ORDER BY 1, 2;

-- freshness_columns --
-- Which columns of a table tell when a row was last written: ours, the ERP's, both or none.
SELECT column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = :table AND column_name IN ('synced_at', 'updated_at')
ORDER BY column_name;
