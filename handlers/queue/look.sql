-- payloads --
-- The payloads of these events as text, and when they came in: for a record without a stamp that is its version.
SELECT id, validated_payload::text AS payload, created_at FROM tds_sync_queue WHERE id = ANY(CAST(:ids AS uuid[]));

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

-- known_errors --
-- What events of each type died of in the day before :before, with values masked, and the given former errors.
SELECT DISTINCT known.type, regexp_replace(left(known.error, 300), '''[^'']*''|"[^"]*"|[0-9]+', '0', 'g') AS error
FROM (
    SELECT q.entity_type::text AS type, q.error_message AS error
    FROM tds_sync_queue q
    WHERE q.status IN ('failed', 'dead_letter')
      AND q.created_at BETWEEN CAST(:before AS timestamptz) - interval '1 day' AND CAST(:before AS timestamptz)
      AND q.started_at < CAST(:before AS timestamptz)
    UNION ALL
    SELECT f.type, f.error FROM unnest(CAST(:types AS text[]), CAST(:errors AS text[])) AS f (type, error)
) known
WHERE known.error <> '';

-- outcomes_since --
-- What became of the events that were first taken since :since, except :excluding, by kind of record.
WITH arrived AS (
    SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id, q.created_at, q.error_message, q.error_code,
        q.status = 'completed' AS completed, q.status IN ('pending', 'retry') AS waits,
        q.status = 'retry' AND q.error_code = 'missing_parent' AS for_parent,
        q.status IN ('failed', 'dead_letter') AS failed
    FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:arrived_since AS timestamptz) AND q.id <> ALL (CAST(:excluding AS uuid[]))
      -- What a worker took before is no evidence about the time since. Ours keep when that was the first time.
      AND (q.created_at >= CAST(:since AS timestamptz)
           OR CASE WHEN q.processing_result ->> 'admitted' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+[+]00:00$'
                   THEN CAST(q.processing_result ->> 'admitted' AS timestamptz) >= CAST(:since AS timestamptz)
                   -- A time in the future was written without a zone: it says nothing.
                   ELSE coalesce(q.started_at BETWEEN CAST(:since AS timestamptz) AND clock_timestamp(),
                                 q.status = 'pending') END)
), came AS (
    -- The events of each record that came to rest, from the first and from the last one; then those that did not.
    SELECT a.*,
        row_number() OVER (
            PARTITION BY a.raw_type, a.source_entity_id
            ORDER BY (a.completed OR a.failed) DESC, a.created_at, a.id) AS from_first,
        row_number() OVER (
            PARTITION BY a.raw_type, a.source_entity_id
            ORDER BY (a.completed OR a.failed) DESC, a.created_at DESC, a.id DESC) AS from_last
    FROM arrived a
), first AS (
    -- One row for each record, by the first event that came to rest: repeated failures are one failure.
    -- A record that failed when it came last has failed too: an old success says nothing of how things stand.
    SELECT f.raw_type, f.created_at, f.waits, f.for_parent,
        f.completed AND NOT l.failed AS completed,
        f.failed OR l.failed AS failed,
        CASE WHEN l.failed THEN l.error_message ELSE f.error_message END AS error_message
    FROM came f
    JOIN came l ON l.raw_type = f.raw_type AND l.source_entity_id = f.source_entity_id AND l.from_last = 1
    WHERE f.from_first = 1
), judged AS (
    SELECT f.raw_type, f.error_message, f.completed, f.failed,
        -- As in `known_errors`.
        f.failed AND EXISTS (
            SELECT FROM unnest(CAST(:known_types AS text[]), CAST(:known_errors AS text[])) AS k (type, error)
            WHERE k.type = f.raw_type
              AND k.error = regexp_replace(left(f.error_message, 300), '''[^'']*''|"[^"]*"|[0-9]+', '0', 'g')
        ) AS known,
        f.waits AND coalesce(hold.until > clock_timestamp(), false) AS held,
        NOT f.completed AND NOT f.failed
            -- The time for which a limit held an event is nobody's fault.
            AND greatest(f.created_at, CAST(:since AS timestamptz), CASE WHEN f.waits THEN hold.until END)
                -- A parent may be on its way.
                <= clock_timestamp() - make_interval(secs =>
                    CAST(:late_seconds AS double precision) * CASE WHEN f.for_parent THEN 3 ELSE 1 END)
            AS late
    FROM first f
    LEFT JOIN LATERAL (
        SELECT max(h.until) AS until
        FROM unnest(CAST(:held_types AS text[]), CAST(:held_until AS timestamptz[])) AS h (type, until)
        WHERE h.type IN ('*', f.raw_type)
    ) hold ON true
)
SELECT j.raw_type,
    -- Codes, and how the texts begin, of every event: no sample and no other error of a record hides one of them.
    (SELECT coalesce(array_agg(DISTINCT kind.said), '{}')
     FROM arrived a
     CROSS JOIN LATERAL (VALUES
         (a.error_code),
         (left(regexp_replace(left(a.error_message, 300), '''[^'']*''|"[^"]*"|[0-9]+', '0', 'g'), 80))
     ) AS kind (said)
     WHERE a.raw_type = j.raw_type AND NOT a.completed AND kind.said IS NOT NULL) AS error_kinds,
    count(*) FILTER (WHERE j.completed) AS completed,
    count(*) FILTER (WHERE j.failed) AS failed,
    count(*) FILTER (WHERE NOT j.completed AND NOT j.failed AND NOT j.late) AS open,
    count(*) FILTER (WHERE j.late) AS late,
    count(*) FILTER (WHERE j.held) AS held,
    count(*) FILTER (WHERE j.known) AS known,
    -- Digits are masked, so that equal errors are equal texts.
    coalesce((array_agg(DISTINCT left(regexp_replace(j.error_message, '[0-9]+', '0', 'g'), 500))
              FILTER (WHERE j.failed AND j.error_message IS NOT NULL))[1:50], '{}') AS error_samples
FROM judged j
GROUP BY j.raw_type
ORDER BY j.raw_type;
