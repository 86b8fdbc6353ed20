-- entered --
-- The phases that a release has entered, in order.
SELECT phase::text AS name FROM runbook.phase_record WHERE release_id = :release_id ORDER BY id;

-- operations --
-- The operations that were intended on each host, in order.
SELECT kind AS name, host FROM runbook.operation WHERE release_id = :release_id ORDER BY started_at;
