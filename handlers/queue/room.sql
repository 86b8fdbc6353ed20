-- limits_exist --
-- Whether this database has the table of limits. Workers also run on databases with an older ledger or none.
SELECT to_regclass('runbook.intake') IS NOT NULL AS there;

-- lock_limits --
-- Lock the limits in force until this transaction ends: workers that share a limit take turns.
SELECT entity_type FROM runbook.intake WHERE until > now() ORDER BY entity_type FOR UPDATE;

-- room --
-- How many events may still be taken under each limit in force.
-- A statement of its own after `lock_limits`: its snapshot has what those before us have taken.
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
