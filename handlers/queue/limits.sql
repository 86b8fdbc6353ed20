-- limit --
-- Set a limit, or replace the one that is there.
INSERT INTO runbook.intake (entity_type, per_ten_seconds, until, set_by, reason)
VALUES (:entity, :per_ten_seconds, clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)), :by,
    :reason)
ON CONFLICT (entity_type) DO UPDATE
-- taken and taken_at stay: setting a limit again must not let more through.
SET per_ten_seconds = excluded.per_ten_seconds, until = excluded.until, set_by = excluded.set_by,
    reason = excluded.reason, set_at = excluded.set_at
RETURNING entity_type, per_ten_seconds, until, set_by, reason, set_at;

-- lift --
-- End a limit, or all of them where :entity is NULL. Only those that were in force are answered.
WITH lifted AS (
    DELETE FROM runbook.intake
    WHERE CAST(:entity AS text) IS NULL OR entity_type = :entity
    RETURNING entity_type, per_ten_seconds, until, set_by, reason, set_at
)
SELECT entity_type, per_ten_seconds, until, set_by, reason, set_at
FROM lifted
WHERE until > clock_timestamp()
ORDER BY entity_type;

-- limits --
-- The limits in force.
SELECT entity_type, per_ten_seconds, until, set_by, reason, set_at
FROM runbook.intake
WHERE until > clock_timestamp()
ORDER BY entity_type;
