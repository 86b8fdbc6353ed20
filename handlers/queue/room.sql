-- limits_exist --
-- Whether this database has the table of limits. Workers also run on databases with an older ledger or none.
SELECT to_regclass('runbook.intake') IS NOT NULL AS there;

-- in_force --
-- Which limits are in force, and the shortest time over which one of them counts.
SELECT i.entity_type,
    -- By its name in a JSON object: a ledger of an older version has no such column.
    coalesce(CAST(to_jsonb(i) ->> 'window_seconds' AS double precision), 10) AS window_seconds
FROM runbook.intake i
WHERE i.until > clock_timestamp();

-- lock_limits --
-- Lock the limits in force until this transaction ends: workers that share a limit take turns.
SELECT entity_type FROM runbook.intake WHERE until > now() ORDER BY entity_type FOR UPDATE;

-- room --
-- How many events may still be taken under each of the limits :locked.
-- A statement of its own after `lock_limits`: its snapshot has what those before us have taken.
SELECT i.entity_type, greatest(0, i.per_ten_seconds - coalesce((
    SELECT sum(t.number)
    FROM unnest(i.taken_at, i.taken) AS t (at, number)
    -- now() is what the claim writes to `started_at`. By those times no window holds more than the limit.
    WHERE t.at > now() - make_interval(
        secs => coalesce(CAST(to_jsonb(i) ->> 'window_seconds' AS double precision), 10))
), 0)) AS room, starts_with(i.set_by, :gate) AS by_gate
FROM runbook.intake i
WHERE i.entity_type = ANY (CAST(:locked AS text[]));

-- take --
-- Note how many events were taken under each limit, and forget what is older than two windows.
-- One would do, but for a claim that began before this one and still waits for its turn.
UPDATE runbook.intake i
SET taken_at = ARRAY(
        SELECT t.at FROM unnest(i.taken_at, i.taken) AS t (at, number)
        WHERE t.at > now() - 2 * make_interval(
            secs => coalesce(CAST(to_jsonb(i) ->> 'window_seconds' AS double precision), 10))
        ORDER BY t.at
    ) || now(),
    taken = ARRAY(
        SELECT t.number FROM unnest(i.taken_at, i.taken) AS t (at, number)
        WHERE t.at > now() - 2 * make_interval(
            secs => coalesce(CAST(to_jsonb(i) ->> 'window_seconds' AS double precision), 10))
        ORDER BY t.at
    ) || n.number
FROM unnest(CAST(:entities AS text[]), CAST(:numbers AS integer[])) AS n (entity, number)
WHERE i.entity_type = n.entity;
