-- waiting_for --
-- Events that wait for one of the records :keys, or have become dead letters because they did not come.
WITH index AS (
    -- `runbook db adopt` makes an index on what events wait for. Elsewhere all that wait are read once.
    SELECT EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('ix_tds_sync_queue_waiting_for') AND indisvalid
    ) AS is_there
)
SELECT child.id
FROM (SELECT DISTINCT key FROM unnest(CAST(:keys AS text[])) AS k (key)) k
CROSS JOIN LATERAL (
    SELECT child.id
    FROM tds_sync_queue child
    WHERE child.error_code = 'missing_parent'
      AND (child.processing_result -> 'parents') ? k.key
      -- Cast to text, so that the planner does not choose the index on the status.
      AND child.status::text IN ('retry', 'dead_letter')
    OFFSET 0
) child
WHERE (SELECT is_there FROM index)
UNION
SELECT child.id
FROM tds_sync_queue child
CROSS JOIN LATERAL jsonb_array_elements_text(child.processing_result -> 'parents') AS parent (key)
WHERE child.status IN ('retry', 'dead_letter') AND child.error_code = 'missing_parent'
  -- IS TRUE keeps this a hashed subplan for each child, whatever the planner estimates.
  AND (parent.key IN (SELECT unnest(CAST(:keys AS text[])))) IS TRUE
  AND NOT (SELECT is_there FROM index);

-- waiting_longest --
-- At most :limit events that wait for a parent, those first whose next attempt is furthest away.
SELECT q.id
FROM tds_sync_queue q
WHERE q.status = 'retry' AND q.error_code = 'missing_parent' AND q.next_retry_at > now()
ORDER BY q.next_retry_at DESC
LIMIT CAST(:limit AS bigint);

-- waited_in_vain --
-- At most :limit dead letters of the last day that waited for a parent, those first that were tried last.
SELECT q.id
FROM tds_sync_queue q
WHERE q.status = 'dead_letter' AND q.error_code = 'missing_parent' AND q.started_at > now() - interval '1 day'
ORDER BY q.started_at DESC
LIMIT CAST(:limit AS bigint);

-- wake --
-- Let those of :ids be tried at once that wait for parents, when all of them have come. Dead letters are due again.
WITH waiting AS (
    SELECT q.id
    FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[]))
      AND q.error_code = 'missing_parent'
      AND (q.status = 'dead_letter' OR (q.status = 'retry' AND q.next_retry_at > now()))
      AND jsonb_array_length(q.processing_result -> 'parents') > 0
      AND (
          -- All parents, not one: a child of fifty would be tried fifty times. Who waits for a number tries at once.
          SELECT CASE WHEN q.processing_result ? 'number' THEN bool_or(parent.has_come)
                      ELSE bool_and(parent.has_come) END
          FROM (
              -- :keys have come, as the caller knows.
              SELECT p.key = ANY (CAST(:keys AS text[])) OR EXISTS (
                  SELECT FROM tds_sync_queue came
                  WHERE came.source_entity_id = p.key
                    AND came.status = 'completed'
                    -- Since the child was tried: an older event of the parent was no help then.
                    AND came.completed_at
                        >= q.started_at - make_interval(secs => CAST(:earlier_seconds AS double precision))
                  OFFSET 0
              ) AS has_come
              FROM jsonb_array_elements_text(q.processing_result -> 'parents') AS p (key)
          ) parent
      )
    -- Children that another worker is waking are left to it.
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE tds_sync_queue q
SET status = 'retry', next_retry_at = now()
WHERE q.id = ANY (ARRAY(SELECT id FROM waiting))
RETURNING q.id;
