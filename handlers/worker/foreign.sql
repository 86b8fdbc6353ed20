-- newer_foreign --
-- Newer events of the same records as :ids that the ERP's own workers have applied or are applying.
-- Run it with the rows of :ids locked: what others write after that, they had leased before.
WITH ours AS (
    -- One lookup for each record, from its oldest event on.
    SELECT DISTINCT ON (q.entity_type, q.source_entity_id) q.entity_type, q.source_entity_id, q.created_at, q.id
    FROM tds_sync_queue q
    WHERE q.id = ANY (CAST(:ids AS uuid[]))
    ORDER BY q.entity_type, q.source_entity_id, q.created_at, q.id
)
SELECT other.id, other.entity_type::text AS entity_type, other.source_entity_id,
    other.operation_type::text AS operation_type, other.validated_payload::text AS payload, other.attempt_count,
    other.max_retry_attempts, other.created_at, other.locked_by, other.status <> 'completed' AS in_hand
FROM ours
CROSS JOIN LATERAL (
    SELECT theirs.*
    FROM (
        SELECT o.*
        FROM tds_sync_queue o
        WHERE o.entity_type = ours.entity_type
          AND o.source_entity_id = ours.source_entity_id
          AND (o.created_at, o.id) > (ours.created_at, ours.id)
          -- Our workers write their name into the result, the ERP's own do not.
          AND ((o.status = 'completed' AND o.processing_result ->> 'worker' IS NULL)
               OR (o.status IN ('pending', 'processing') AND o.lock_expires_at > now() AND o.locked_by <> :owner
                   -- Other workers of ours, whose tokens match :ours, compare the stamps: no need to wait.
                   AND o.locked_by !~ CAST(:ours AS text)))
        -- OFFSET 0 keeps this a lookup in the index on records.
        OFFSET 0
    ) theirs
    -- Of a long history the newest events are enough.
    ORDER BY theirs.status = 'completed', theirs.created_at DESC, theirs.id DESC
    LIMIT 50
) other;
