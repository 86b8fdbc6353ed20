-- tally --
-- How long the events took that completed from :since to before :until, by type, counted between :bounds.
WITH done AS (
    -- Our workers leave the end of their lease, which is later than the completion: an index leads to them.
    SELECT q.entity_type, q.started_at, q.completed_at
    FROM tds_sync_queue q
    WHERE q.lock_expires_at >= CAST(:since AS timestamptz)
      AND q.status = 'completed' AND q.source_entity_id <> CAST(:synthetic AS text)
      AND q.completed_at >= CAST(:since AS timestamptz) AND q.completed_at < CAST(:until AS timestamptz)
    UNION ALL
    -- Of workers that leave none, the newest :rows_max events of the hour before.
    SELECT t.entity_type, t.started_at, t.completed_at
    FROM (SELECT q.entity_type, q.status, q.started_at, q.completed_at, q.lock_expires_at, q.source_entity_id
          FROM tds_sync_queue q
          WHERE q.created_at >= CAST(:since AS timestamptz) - interval '1 hour'
          ORDER BY q.created_at DESC
          LIMIT CAST(:rows_max AS bigint)) t
    WHERE (t.lock_expires_at >= CAST(:since AS timestamptz)) IS NOT TRUE
      AND t.status = 'completed' AND t.source_entity_id <> CAST(:synthetic AS text)
      AND t.completed_at >= CAST(:since AS timestamptz) AND t.completed_at < CAST(:until AS timestamptz)
), timed AS (
    SELECT d.entity_type::text AS raw_type,
        greatest(extract(epoch FROM d.completed_at - d.started_at), 0)::float8 AS seconds
    FROM done d
    WHERE d.started_at IS NOT NULL
)
SELECT t.raw_type,
    -- A bound is part of the bucket that ends there: 0 is the first bucket, and the last one has no end.
    (SELECT count(*) FROM unnest(CAST(:bounds AS float8[])) AS bound WHERE bound < t.seconds) AS bucket,
    count(*) AS events, sum(t.seconds)::float8 AS seconds
FROM timed t
GROUP BY 1, 2;
