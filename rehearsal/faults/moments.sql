-- entered --
-- The phases that a release has entered, in order. A planned one counts from when a controller has it.
SELECT p.phase::text AS name
FROM runbook.phase_record p
JOIN runbook.release r ON r.id = p.release_id
WHERE p.release_id = :release_id AND (p.phase <> 'planned' OR r.token IS NOT NULL)
ORDER BY p.id;

-- operations --
-- The operations that were intended on each host, in order.
SELECT kind AS name, host FROM runbook.operation WHERE release_id = :release_id ORDER BY started_at;
