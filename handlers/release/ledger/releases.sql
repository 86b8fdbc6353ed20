-- serialize_ids --
-- Let releases that begin at the same time get their numbers one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('runbook.release.id', 0));

-- next_id --
-- The day's next number. Counted over the whole ledger, because the id is the key of all its environments.
SELECT to_char(d.today, 'YYYY-MM-DD') || '.' || 1 + coalesce(max(split_part(r.id, '.', 2)::integer), 0)
FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS d
LEFT JOIN runbook.release AS r ON r.id LIKE to_char(d.today, 'YYYY-MM-DD') || '.%'
GROUP BY d.today;

-- begin --
-- Write a release down as planned, before anything is done.
INSERT INTO runbook.release
    (id, environment, from_revision, to_revision, requested_by, speed, plan, plan_hash, created_at)
VALUES (:id, :environment, :from_revision, :to_revision, :requested_by, :speed, CAST(:plan AS jsonb), :plan_hash,
        clock_timestamp());

-- get --
-- One release.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release WHERE id = :id;

-- lock_release --
-- One release, with its row locked until the transaction ends, so that no other controller moves it.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release WHERE id = :id FOR NO KEY UPDATE;

-- live --
-- The release that owns an environment now, if one does.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release
WHERE environment = :environment
  AND phase::text = ANY (CAST(:live AS text[]));

-- history --
-- The newest releases of an environment, newest first.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release WHERE environment = :environment
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- plan --
-- What a release set out to do, as it was approved.
SELECT plan::text FROM runbook.release WHERE id = :id;

-- enter_phase --
-- Move a release on, provided it is still in the phase that was read. No row: it has moved.
UPDATE runbook.release
SET phase = CAST(:to AS runbook.phase),
    resume_phase = CAST(:resume_phase AS runbook.phase),
    reason = CASE WHEN :sentence = '' THEN reason ELSE :sentence END,
    finished_at = CASE WHEN :is_final THEN clock_timestamp() END
WHERE id = :id AND phase = CAST(:from AS runbook.phase)
RETURNING id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed,
          reason, created_at, finished_at;

-- open_phase --
-- A release is in a phase from now on.
INSERT INTO runbook.phase_record (release_id, phase) VALUES (:release_id, CAST(:phase AS runbook.phase));

-- close_phase --
-- The phase has ended: what it concluded, added to what was noted while it ran.
UPDATE runbook.phase_record
SET finished_at = clock_timestamp(), verdict = CAST(:verdict AS runbook.verdict), sentence = :sentence,
    detail = detail || CAST(:detail AS jsonb)
WHERE release_id = :release_id AND finished_at IS NULL;

-- note --
-- Add to what the running phase knows. A key is replaced, and what is noted by host only for these hosts.
UPDATE runbook.phase_record AS record
SET detail = record.detail || new.note || (
    SELECT coalesce(jsonb_object_agg(k.key, coalesce(record.detail -> k.key, '{}') || (new.note -> k.key)), '{}')
    FROM unnest(ARRAY['hosts', 'returns']) AS k (key) WHERE new.note ? k.key)
FROM (SELECT CAST(:detail AS jsonb) AS note) AS new
WHERE record.release_id = :release_id AND record.finished_at IS NULL
RETURNING record.id;

-- upstream_changes --
-- When an outage of the upstream began or ended, as the newest look around the release knows it.
SELECT change.value ->> 0 AS at, CAST(change.value ->> 1 AS boolean) AS up
FROM (
    SELECT detail FROM runbook.phase_record
    WHERE release_id = :release_id AND detail ? 'around'
    ORDER BY id DESC LIMIT 1
) AS newest, jsonb_array_elements(newest.detail #> '{around,state,changes}') WITH ORDINALITY AS change (value, place)
ORDER BY change.place;

-- phase_records --
-- Every stay of a release in a phase, in order.
SELECT id, phase::text, started_at, finished_at, verdict::text, sentence, detail::text
FROM runbook.phase_record WHERE release_id = :release_id ORDER BY id;
