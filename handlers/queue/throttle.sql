-- lock_limits --
-- Lock every limit that was ever set, in the order in which claims lock theirs.
SELECT FROM runbook.intake ORDER BY entity_type FOR UPDATE;

-- throttle --
-- Set the limits of one gate. The limit of anybody else stays as long as it is in force.
INSERT INTO runbook.intake AS i (entity_type, per_ten_seconds, window_seconds, until, set_by, reason)
SELECT n.entity, n.quota, CAST(:window_seconds AS double precision),
    clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)), CAST(:by AS text),
    CAST(:reason AS text)
FROM unnest(CAST(:entities AS text[]), CAST(:quotas AS integer[])) AS n (entity, quota)
ORDER BY n.entity
ON CONFLICT (entity_type) DO UPDATE
-- taken and taken_at stay: setting a limit again must not let more through.
SET per_ten_seconds = excluded.per_ten_seconds, window_seconds = excluded.window_seconds, until = excluded.until,
    set_by = excluded.set_by, reason = excluded.reason, set_at = excluded.set_at
WHERE i.until <= clock_timestamp() OR i.set_by = excluded.set_by;

-- lift --
-- End the limits of one gate in force, except those of :kept. The rows stay: what was held is not late.
UPDATE runbook.intake i
SET until = clock_timestamp()
WHERE i.until > clock_timestamp() AND i.set_by = :by AND i.entity_type <> ALL (CAST(:kept AS text[]))
RETURNING i.entity_type;
