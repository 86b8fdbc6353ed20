-- take --
-- Take the lock, with a higher token, when it is free, has expired, is ours already, or its process has ended. No row:
-- it is held.
INSERT INTO runbook.lock AS held (environment, release_id, holder, process, token, taken_at, heartbeat_at, expires_at)
-- The token is at least the seconds since 2025. Hosts remember the highest token, and must also obey a ledger that
-- was created anew or restored from a backup.
VALUES (:environment, :release_id, :holder, CAST(:process AS jsonb),
        extract(epoch FROM clock_timestamp())::bigint - 1735689600,
        clock_timestamp(), clock_timestamp(), clock_timestamp() + make_interval(secs => :ttl))
ON CONFLICT (environment) DO UPDATE
SET release_id = excluded.release_id, holder = excluded.holder, process = excluded.process,
    token = greatest(held.token + 1, excluded.token), taken_at = excluded.taken_at,
    heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at
WHERE :by_force
   OR held.release_id IS NULL
   OR held.expires_at <= clock_timestamp()
   OR held.token = CAST(:ended_token AS bigint)
   OR (held.release_id = excluded.release_id AND held.holder = excluded.holder
       AND held.process IS NOT DISTINCT FROM excluded.process)
RETURNING token;

-- give_token --
-- Let the release know under which token it may change things.
UPDATE runbook.release SET token = :token WHERE id = :release_id AND environment = :environment RETURNING id;

-- lock_release --
-- Lock the release's row before the lock's row. Every statement takes the two in this order: no deadlock.
SELECT id FROM runbook.release WHERE id = :release_id AND environment = :environment FOR NO KEY UPDATE;

-- record_takeover --
-- Keep who took the lock away from whom, and why.
INSERT INTO runbook.takeover (environment, release_id, former_holder, holder, token, reason)
VALUES (:environment, :release_id, :former_holder, :holder, :token, :reason);

-- renew --
-- Extend the lock, provided the token is still ours. No row: another controller has taken it.
UPDATE runbook.lock
SET heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => :ttl)
WHERE environment = :environment AND token = :token AND release_id IS NOT NULL
RETURNING token;

-- free --
-- Give the lock back, provided it is still ours.
UPDATE runbook.lock
-- The token stays: it never decreases.
SET release_id = NULL, holder = '', process = NULL, expires_at = clock_timestamp()
WHERE environment = :environment AND token = :token
RETURNING token;

-- fence --
-- Lock the lock's row until the transaction ends, provided the token is still ours: a take-over then waits for us.
SELECT token FROM runbook.lock
WHERE environment = :environment AND token = :token AND release_id IS NOT NULL
FOR SHARE;

-- holder --
-- Who holds the lock, for how long, and how old the last heartbeat is, all by the database's clock.
SELECT environment, release_id, holder, process::text, token, taken_at, heartbeat_at, expires_at,
       extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds,
       expires_at > clock_timestamp() AS is_valid
FROM runbook.lock
WHERE environment = :environment AND release_id IS NOT NULL;

-- last_sign --
-- The last sign of life of the controller with this token: its last renewal, or the release of the lock.
SELECT CASE WHEN release_id IS NULL THEN expires_at ELSE heartbeat_at END
FROM runbook.lock WHERE environment = :environment AND token = :token;
