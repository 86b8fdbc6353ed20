-- in_other_hands --
-- Newer events of the same records as :ids that somebody else has applied, or has in hand at this moment: whoever completes
-- an event of ours says so in its result, and the ERP's own workers say nothing. To be asked when the rows of :ids are
-- locked: what others have written until then, they had in hand before. Each record is asked about once, from its oldest
-- event on, and of a long history of others its end is enough. Workers of ours, whose tokens look like :ours, may
-- be at a newer event when the older one was the later to come in: they go by the stamps, and need not be waited for.
WITH ours AS (
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
          AND ((o.status = 'completed' AND o.processing_result ->> 'worker' IS NULL)
               OR (o.status IN ('pending', 'processing') AND o.lock_expires_at > now() AND o.locked_by <> :owner
                   AND o.locked_by !~ CAST(:ours AS text)))
        OFFSET 0
    ) theirs
    ORDER BY theirs.status = 'completed', theirs.created_at DESC, theirs.id DESC
    LIMIT 50
) other;
