-- open --
-- What healing leaves alone now. A stop whose time is over is kept, and counts when it stops again.
SELECT id, entity_type AS entity, fingerprint AS former, event_id::text AS event_id, times, by, reason,
       extract(epoch FROM until - clock_timestamp())::float8 AS left_seconds
FROM runbook.heal_stop
WHERE environment = :environment AND lifted_at IS NULL AND (until IS NULL OR until > clock_timestamp())
ORDER BY id;

-- rest --
-- Let letters of a kind rest: twice as long as the last time. What a person has quarantined stays so.
INSERT INTO runbook.heal_stop AS s (environment, entity_type, fingerprint, until, by, reason)
VALUES (:environment, :entity, :former, clock_timestamp() + make_interval(secs => :seconds), :by, :reason)
ON CONFLICT (environment, entity_type, fingerprint) WHERE event_id IS NULL AND lifted_at IS NULL DO UPDATE
SET times = s.times + 1, since = clock_timestamp(), by = excluded.by, reason = excluded.reason,
    until = clock_timestamp() + make_interval(secs => least(
        CAST(:seconds_max AS float8), CAST(:seconds AS float8) * power(2, least(s.times, 20))))
WHERE s.until IS NOT NULL
RETURNING s.times;

-- forget --
-- A letter of this kind completed: the next stop begins with the first time again.
UPDATE runbook.heal_stop SET lifted_at = clock_timestamp(), lifted_by = :by
WHERE environment = :environment AND lifted_at IS NULL AND event_id IS NULL AND until <= clock_timestamp()
  AND (entity_type, fingerprint) IN (
      SELECT k.entity, k.former FROM unnest(CAST(:entities AS text[]), CAST(:formers AS text[])) AS k (entity, former));

-- quarantine_kind --
-- A person sets letters of a kind aside, until a person lifts it.
INSERT INTO runbook.heal_stop AS s (environment, entity_type, fingerprint, by, reason)
VALUES (:environment, :entity, :former, :by, :reason)
ON CONFLICT (environment, entity_type, fingerprint) WHERE event_id IS NULL AND lifted_at IS NULL DO UPDATE
SET until = NULL, since = clock_timestamp(), by = excluded.by, reason = excluded.reason
RETURNING s.id;

-- quarantine_event --
-- A person sets one letter aside.
INSERT INTO runbook.heal_stop AS s (environment, entity_type, fingerprint, event_id, by, reason)
VALUES (:environment, :entity, :former, CAST(:event_id AS uuid), :by, :reason)
ON CONFLICT (environment, event_id) WHERE event_id IS NOT NULL AND lifted_at IS NULL DO UPDATE
SET since = clock_timestamp(), by = excluded.by, reason = excluded.reason
RETURNING s.id;

-- lift --
-- Healing may try them again.
UPDATE runbook.heal_stop SET lifted_at = clock_timestamp(), lifted_by = :by
WHERE environment = :environment AND id = :id AND lifted_at IS NULL
RETURNING entity_type, fingerprint;
