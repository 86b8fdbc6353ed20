-- withdraw --
-- Take a release's test events out of the queue that have come to rest, or that no worker has.
WITH ours AS (
    SELECT q.id, q.inbox_event_id
    FROM tds_sync_queue q
    JOIN tds_inbox_events i ON i.id = q.inbox_event_id
    WHERE q.source_entity_id = CAST(:synthetic AS text)
      AND i.webhook_headers ->> CAST(:header AS text) = CAST(:release_id AS text)
      -- While it is open, a delete still has a row to take away.
      AND (q.status IN ('completed', 'failed', 'dead_letter')
           OR q.status IN ('pending', 'retry') AND q.operation_type <> 'delete')
    FOR UPDATE OF q SKIP LOCKED
)
DELETE FROM tds_sync_queue q USING ours WHERE q.id = ours.id RETURNING q.inbox_event_id;

-- forget --
-- The rows of the inbox that these events came from.
DELETE FROM tds_inbox_events WHERE id = ANY (CAST(:ids AS uuid[]));
