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
