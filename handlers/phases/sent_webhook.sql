-- open_ones --
-- Synthetic events that are not settled: a release's canary, or another test.
SELECT q.id, q.status::text AS status FROM tds_sync_queue q
WHERE q.source_entity_id = CAST(:synthetic AS text) AND q.status IN ('pending', 'processing', 'retry')
ORDER BY q.created_at LIMIT 1;

-- ours --
-- The event that the receiver has made of our call: it has the name that only this call has.
SELECT q.id, q.created_at FROM tds_sync_queue q
WHERE q.source_entity_id = CAST(:synthetic AS text)
  AND q.created_at > CAST(:since AS timestamptz)
  AND CAST(:name AS text) IN (q.validated_payload ->> 'name', q.validated_payload -> 'item' ->> 'name')
ORDER BY q.created_at LIMIT 1;

-- remove --
-- Take our event out of the queue, unless a worker has it, and answer with the row of the inbox that it came from.
WITH free AS (
    SELECT q.id FROM tds_sync_queue q
    WHERE q.id = CAST(:id AS uuid)
      AND (q.status IN ('completed', 'failed', 'dead_letter') OR (
          -- The lease is free, as in claim.sql.
          (q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')
          AND (q.status <> 'processing' OR q.lock_expires_at <= now())
      ))
    FOR UPDATE OF q SKIP LOCKED
)
DELETE FROM tds_sync_queue q USING free WHERE q.id = free.id RETURNING q.inbox_event_id;

-- remove_inbox --
-- Take the row of the inbox away that our event came from.
DELETE FROM tds_inbox_events WHERE id = CAST(:id AS uuid);
