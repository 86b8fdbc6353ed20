-- intake_there --
-- Whether this database has the table of limits: workers also serve one whose ledger is older, or that has none.
SELECT to_regclass('runbook.intake') IS NOT NULL AS there;

-- hold_limits --
-- Keep the limits in force to ourselves until this transaction ends: workers that share one take turns.
SELECT entity_type FROM runbook.intake WHERE until > now() ORDER BY entity_type FOR UPDATE;

-- room --
-- How many events may still be taken under each limit in force. Asked after `hold_limits`, as a statement of its own,
-- so that it sees what those before us have taken.
SELECT i.entity_type, greatest(0, i.per_ten_seconds - coalesce((
    SELECT sum(t.number)
    FROM unnest(i.taken_at, i.taken) AS t (at, number)
    WHERE t.at > statement_timestamp() - interval '10 seconds'
), 0)) AS room
FROM runbook.intake i
WHERE i.until > now();

-- take --
-- Note how many events were taken under each limit, and forget what is older than ten seconds.
UPDATE runbook.intake i
SET taken_at = ARRAY(
        SELECT t.at FROM unnest(i.taken_at, i.taken) AS t (at, number)
        WHERE t.at > statement_timestamp() - interval '10 seconds' ORDER BY t.at
    ) || statement_timestamp(),
    taken = ARRAY(
        SELECT t.number FROM unnest(i.taken_at, i.taken) AS t (at, number)
        WHERE t.at > statement_timestamp() - interval '10 seconds' ORDER BY t.at
    ) || n.number
FROM unnest(CAST(:entities AS text[]), CAST(:numbers AS integer[])) AS n (entity, number)
WHERE i.entity_type = n.entity;
