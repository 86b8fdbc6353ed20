-- open --
-- The open sync of a kind, locked: nobody else takes it over meanwhile.
SELECT id, environment, kind, entity_types, owner, deletes_all, started_at, state, sentence,
    greatest(0, extract(epoch FROM resume_at - clock_timestamp()))::double precision AS wait_seconds
FROM runbook.sync_run
WHERE environment = :environment AND kind = :kind AND ended_at IS NULL
FOR UPDATE;

-- insert --
-- Begin a sync.
INSERT INTO runbook.sync_run (environment, kind, entity_types, requested_by, owner, deletes_all)
VALUES (:environment, :kind, :entity_types, :by, :owner, :deletes_all)
RETURNING id, environment, kind, entity_types, owner, deletes_all, started_at, state, sentence,
    CAST(0 AS double precision) AS wait_seconds;

-- take_over --
-- Carry an open sync on, under another owner.
UPDATE runbook.sync_run
SET owner = :owner, state = 'running', resume_at = NULL, sentence = '', beat_at = clock_timestamp(),
    deletes_all = deletes_all OR :deletes_all
WHERE id = :id
RETURNING id, environment, kind, entity_types, owner, deletes_all, started_at, state, sentence,
    CAST(0 AS double precision) AS wait_seconds;

-- is_free --
-- Whether no process carries the sync of this lock; until the transaction ends none begins to.
SELECT pg_try_advisory_xact_lock(:number);

-- lock --
-- Hold the lock of a sync for as long as this connection lives: it ends with the process.
SELECT pg_try_advisory_lock(:number);

-- unlock --
-- Give the lock back.
SELECT pg_advisory_unlock(:number);

-- settle --
-- End a sync, or let it wait until somebody carries it on.
UPDATE runbook.sync_run
SET state = :state, sentence = :sentence, beat_at = clock_timestamp(),
    resume_at = CASE WHEN CAST(:wait_seconds AS double precision) > 0
        THEN clock_timestamp() + make_interval(secs => CAST(:wait_seconds AS double precision)) END,
    ended_at = CASE WHEN :state IN ('done', 'replaced') THEN clock_timestamp() END
WHERE id = :id AND owner = :owner AND ended_at IS NULL
RETURNING id;

-- beat --
-- Say that the sync is carried, provided nobody has taken it over.
UPDATE runbook.sync_run SET beat_at = clock_timestamp(), state = 'running'
WHERE id = :id AND owner = :owner AND ended_at IS NULL
RETURNING id;

-- today --
-- The calls of today, and the seconds until tomorrow (UTC).
SELECT coalesce((
        SELECT calls FROM runbook.sync_day
        WHERE environment = :environment AND day = CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date)
    ), 0) AS calls,
    extract(epoch FROM date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 day'
        - clock_timestamp() AT TIME ZONE 'UTC')::double precision AS seconds_left;

-- count_calls --
-- Add to the calls of today.
INSERT INTO runbook.sync_day AS d (environment, day, calls)
VALUES (:environment, CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date), CAST(:calls AS bigint))
ON CONFLICT (environment, day) DO UPDATE SET calls = d.calls + excluded.calls
RETURNING d.calls;

-- newest --
-- The newest sync of a kind, or of any.
SELECT id, environment, kind, entity_types, owner, deletes_all, started_at, state, sentence,
    CAST(greatest(0, extract(epoch FROM resume_at - clock_timestamp())) AS double precision) AS wait_seconds
FROM runbook.sync_run
WHERE environment = :environment AND (CAST(:kind AS text) IS NULL OR kind = :kind)
ORDER BY started_at DESC, id DESC
LIMIT 1;
