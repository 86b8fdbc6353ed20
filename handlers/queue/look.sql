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
-- All dead letters, oldest first, without their payloads and without a release's own test events.
SELECT q.id, q.entity_type::text AS raw_type, q.source_entity_id AS key, q.created_at, q.attempt_count AS attempts,
    q.error_code, q.error_message
FROM tds_sync_queue q
WHERE q.status = 'dead_letter' AND q.source_entity_id <> CAST(:synthetic AS text)
ORDER BY q.created_at, q.id;

-- counts --
-- How many events stand in each status.
SELECT q.status::text AS status, count(*) AS events
FROM tds_sync_queue q
GROUP BY q.status;

-- counts_by_type --
-- How many events of each type stand in each status. The completed ones are left out: they only grow.
SELECT q.entity_type::text AS raw_type, q.status::text AS status, count(*) AS events
FROM tds_sync_queue q
WHERE q.status IN ('pending', 'processing', 'failed', 'retry', 'dead_letter')
GROUP BY 1, 2;
