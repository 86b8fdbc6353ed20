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

-- windows_exist --
-- Whether a limit may have a window of its own; a ledger of an older version has no such column.
SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('runbook.intake') AND attname = 'window_seconds' AND NOT attisdropped
) AS there;

-- reset_window --
-- The limit of a person counts over ten seconds, also where it replaces one of a gate that counted over less.
UPDATE runbook.intake SET window_seconds = DEFAULT WHERE entity_type = :entity;

-- lift --
-- End the limits in force, of :entity or all of them where it is NULL. The row stays: what was held is not late.
WITH former AS (
    SELECT entity_type, until
    FROM runbook.intake
    WHERE until > clock_timestamp() AND (CAST(:entity AS text) IS NULL OR entity_type = :entity)
    ORDER BY entity_type
    FOR UPDATE
), lifted AS (
    UPDATE runbook.intake i
    SET until = clock_timestamp()
    FROM former f
    WHERE i.entity_type = f.entity_type
    RETURNING i.entity_type, i.per_ten_seconds, f.until, i.set_by, i.reason, i.set_at
)
SELECT entity_type, per_ten_seconds, until, set_by, reason, set_at
FROM lifted
ORDER BY entity_type;

-- holds --
-- Every limit that was ever set, also when it has ended: of each type the last one.
SELECT entity_type, until, set_by, until > clock_timestamp() AS in_force
FROM runbook.intake;

-- limits --
-- The limits in force, of the types that workers know.
SELECT i.entity_type, i.per_ten_seconds, i.until, i.set_by, i.reason, i.set_at,
    -- By its name in a JSON object: a ledger of an older version has no such column.
    coalesce(CAST(to_jsonb(i) ->> 'window_seconds' AS double precision), 10) AS window_seconds
FROM runbook.intake i
WHERE i.until > clock_timestamp() AND i.entity_type = ANY (CAST(:names AS text[]))
ORDER BY i.entity_type;
