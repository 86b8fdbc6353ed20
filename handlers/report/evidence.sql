-- failed_events --
-- The events of a release that did not complete: its replays, and live ones since it began. No payloads.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.status::text AS status, q.attempt_count,
       q.error_code, left(q.error_message, 1000) AS error, e.batch, q.created_at, q.started_at,
       e.redriven_at IS NOT NULL AS replayed
FROM tds_sync_queue AS q
LEFT JOIN runbook.release_event AS e ON e.release_id = :release_id AND e.event_id = q.id
WHERE q.status <> 'completed' AND (e.event_id IS NOT NULL OR q.created_at >= :since)
ORDER BY q.created_at, q.id LIMIT 20000;
