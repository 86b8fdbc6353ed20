-- first --
-- The first webhook of the source that came after :since, of this type and record. The synthetic event is left out.
SELECT q.id, q.source_entity_id AS key, q.created_at
FROM tds_sync_queue q
JOIN tds_inbox_events i ON i.id = q.inbox_event_id
WHERE q.created_at > CAST(:since AS timestamptz)
  AND q.entity_type = CAST(:type AS tds_entity_type)
  AND (CAST(:key AS text) IS NULL OR q.source_entity_id = CAST(:key AS text))
  AND q.source_entity_id <> CAST(:synthetic AS text)
  -- What a sync or a person has put there is no webhook.
  AND i.source_type = 'zoho'
ORDER BY q.created_at, q.id
LIMIT 1;
