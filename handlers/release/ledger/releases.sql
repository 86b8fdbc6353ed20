-- The ledger: releases and their phases, operations, events and batches, judgements, quarantine, files.

-- serialize_ids --
-- Two releases that begin at once get their numbers one after the other.
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

-- look_and_hold --
-- One release, with its row held until the transaction ends, so that nobody moves it meanwhile.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release WHERE id = :id FOR NO KEY UPDATE;

-- live --
-- The release that owns an environment now, if one does.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at
FROM runbook.release
WHERE environment = :environment
  AND phase IN ('deploying', 'probing', 'canary', 'draining', 'watching', 'held', 'rolling_back');

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
-- Move a release on, provided nobody has moved it since we looked. No row: it has moved.
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
-- Add to what the running phase knows: hosts seen, the next look. A key that is there already is replaced.
UPDATE runbook.phase_record SET detail = detail || CAST(:detail AS jsonb)
WHERE release_id = :release_id AND finished_at IS NULL
RETURNING id;

-- phase_records --
-- Every stay of a release in a phase, in order.
SELECT id, phase::text, started_at, finished_at, verdict::text, sentence, detail::text
FROM runbook.phase_record WHERE release_id = :release_id ORDER BY id;

-- intend --
-- Write a change of a host down before it is made. The same id again is the same intention, made after a restart.
INSERT INTO runbook.operation (id, release_id, phase, host, kind, command, token)
VALUES (:id, :release_id, CAST(:phase AS runbook.phase), :host, :kind, :command, :token)
ON CONFLICT (id) DO NOTHING;

-- confirm --
-- Write down what came of it. A certain outcome stays; only an uncertain one is replaced by a later answer.
UPDATE runbook.operation
SET finished_at = clock_timestamp(), outcome = CAST(:outcome AS runbook.operation_outcome),
    exit_status = :exit_status, output = :output
WHERE id = :id AND (outcome IS NULL OR outcome IN ('unreachable', 'unknown'));

-- operation --
-- One operation.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation WHERE id = :id;

-- open_operations --
-- Intentions nobody has confirmed: after a restart the hosts are asked about these first.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation
WHERE release_id = :release_id AND (outcome IS NULL OR outcome IN ('unreachable', 'unknown'))
ORDER BY started_at, id;

-- operations --
-- Every change that a release made on hosts, in order.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation WHERE release_id = :release_id ORDER BY started_at, id;

-- plan_events --
-- The exact dead letters that a release may touch. Planning the same event twice changes nothing.
INSERT INTO runbook.release_event (release_id, event_id, position, entity_type, source_entity_id)
SELECT :release_id, planned.event_id, planned.position, planned.entity_type, planned.source_entity_id
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:entity_types AS text[]),
            CAST(:source_entity_ids AS text[]))
     AS planned (event_id, position, entity_type, source_entity_id)
ON CONFLICT (release_id, event_id) DO NOTHING;

-- undrained --
-- Planned events that have not been redriven, in the planned order.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event WHERE release_id = :release_id AND batch IS NULL
ORDER BY position, event_id LIMIT :limit;

-- unsettled --
-- Events that were redriven and have not come to rest, with what they were before.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event
WHERE release_id = :release_id AND redriven_at IS NOT NULL AND settled_at IS NULL
ORDER BY position, event_id;

-- events --
-- Every event that a release may touch and what became of it.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event WHERE release_id = :release_id ORDER BY position, event_id;

-- open_batch --
-- A batch begins; its number is taken once.
INSERT INTO runbook.batch (release_id, number, size) VALUES (:release_id, :number, :size)
RETURNING number, size, started_at, settled_at, completed, failed, open, finding::text, sentence;

-- mark_redriven --
-- These events belong to a batch now; what they were before is kept, so that they can be put back.
UPDATE runbook.release_event AS event
SET batch = :number, redriven_at = clock_timestamp(), former = former.value, status = NULL, error = NULL
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:formers AS jsonb[])) AS former (event_id, value)
WHERE event.release_id = :release_id AND event.event_id = former.event_id AND event.batch IS NULL;

-- mark_settled --
-- These events have come to rest, well or badly.
UPDATE runbook.release_event AS event
SET settled_at = clock_timestamp(), status = state.status, error = state.error
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:errors AS text[]))
     AS state (event_id, status, error)
WHERE event.release_id = :release_id AND event.batch = :number AND event.event_id = state.event_id;

-- settle_batch --
-- A batch has come to rest, with its sum and what the gate found. Settling again corrects an earlier sum.
UPDATE runbook.batch
SET settled_at = clock_timestamp(), completed = :completed, failed = :failed, open = :open,
    finding = CAST(:finding AS runbook.finding), sentence = :sentence
WHERE release_id = :release_id AND number = :number
RETURNING number, size, started_at, settled_at, completed, failed, open, finding::text, sentence;

-- mark_returned --
-- These events went back to the dead letters as they were: they count as not drained.
UPDATE runbook.release_event
SET batch = NULL, redriven_at = NULL, settled_at = NULL, former = '{}', status = 'returned'
WHERE release_id = :release_id AND event_id = ANY(CAST(:event_ids AS uuid[])) AND settled_at IS NULL;

-- batches --
-- A release's batches in order; number 0 is the canary.
SELECT number, size, started_at, settled_at, completed, failed, open, finding::text, sentence
FROM runbook.batch WHERE release_id = :release_id ORDER BY number;

-- record_judgement --
-- Keep a judgement with its inputs, so that it can be explained and replayed.
INSERT INTO runbook.judgement (release_id, phase, finding, sentence, inputs)
VALUES (:release_id, CAST(:phase AS runbook.phase), CAST(:finding AS runbook.finding), :sentence,
        CAST(:inputs AS jsonb))
RETURNING id, phase::text, taken_at, finding::text, sentence, inputs::text;

-- judgements --
-- Every judgement about a release, in order.
SELECT id, phase::text, taken_at, finding::text, sentence, inputs::text
FROM runbook.judgement WHERE release_id = :release_id ORDER BY id;

-- quarantine --
-- Nobody releases this revision again until a named person says so.
INSERT INTO runbook.quarantine (environment, revision, release_id, reason)
VALUES (:environment, :revision, :release_id, :reason)
ON CONFLICT (environment, revision, release_id) DO NOTHING;

-- quarantined --
-- Why a revision is set aside; no row: it is not.
SELECT environment, revision, release_id, reason, since
FROM runbook.quarantine
WHERE environment = :environment AND revision = :revision AND lifted_at IS NULL
ORDER BY since DESC LIMIT 1;

-- set_aside --
-- The revisions of an environment that nobody has let go again yet.
SELECT DISTINCT revision FROM runbook.quarantine WHERE environment = :environment AND lifted_at IS NULL
ORDER BY revision;

-- lift --
-- A named person lets a revision be released again.
UPDATE runbook.quarantine SET lifted_by = :lifted_by, lifted_at = clock_timestamp()
WHERE environment = :environment AND revision = :revision AND lifted_at IS NULL;

-- record_file --
-- A file about a release, with what proves it unchanged. Writing it again replaces the proof.
INSERT INTO runbook.file (release_id, kind, path, sha256, written_at)
VALUES (:release_id, :kind, :path, :sha256, clock_timestamp())
ON CONFLICT (release_id, path) DO UPDATE
SET kind = excluded.kind, sha256 = excluded.sha256, written_at = excluded.written_at;

-- files --
-- The files about a release, oldest first.
SELECT kind, path, sha256, written_at FROM runbook.file WHERE release_id = :release_id ORDER BY written_at, path;
