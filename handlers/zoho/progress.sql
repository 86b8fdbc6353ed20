-- begin_step --
-- Begin an entity type; nothing happens where it was begun before.
INSERT INTO runbook.sync_step (run_id, entity_type, read_at, since, expected)
VALUES (:run_id, :entity, :read_at, CAST(:since AS timestamptz), CAST(:expected AS bigint))
ON CONFLICT DO NOTHING;

-- steps --
-- How far a sync is, of one entity type or of all.
SELECT entity_type, stage, read_at, since, pass, page, fresh, after_key, expected, listed, read, queued, deleted,
    unreadable, calls, sentence
FROM runbook.sync_step
WHERE run_id = :run_id AND (CAST(:entity AS text) IS NULL OR entity_type = :entity);

-- advance --
-- Write how far an entity type is, with what was read until here.
UPDATE runbook.sync_step
SET stage = :stage, pass = :pass, page = :page, fresh = :fresh, after_key = :after_key, listed = :listed,
    read = :read, queued = :queued, deleted = :deleted, unreadable = :unreadable, calls = :calls, sentence = :sentence
WHERE run_id = :run_id AND entity_type = :entity;

-- cursor --
-- Up to when changes were read, and how many records there were.
SELECT read_at, records FROM runbook.sync_cursor WHERE environment = :environment AND entity_type = :entity;

-- move_cursor --
-- The next incremental sync begins here. It never goes back: a long full sync began before the last incremental one.
INSERT INTO runbook.sync_cursor AS c (environment, entity_type, read_at, records)
VALUES (:environment, :entity, :read_at, CAST(:records AS bigint))
ON CONFLICT (environment, entity_type) DO UPDATE
SET read_at = greatest(c.read_at, excluded.read_at), records = coalesce(excluded.records, c.records);

-- seen --
-- What was found before of these records.
SELECT key, run_id = CAST(:run_id AS bigint) AS in_this_run, stamp, harmless
FROM runbook.sync_seen
WHERE environment = :environment AND kind = :kind AND entity_type = :entity AND key = ANY (CAST(:keys AS text[]));

-- see --
-- Note that these records were found, and how they were looked at.
INSERT INTO runbook.sync_seen AS s (environment, kind, entity_type, key, run_id, stamp, harmless)
SELECT :environment, :kind, :entity, r.key, :run_id, r.stamp, r.harmless
FROM unnest(CAST(:keys AS text[]), CAST(:stamps AS timestamptz[]), CAST(:harmless AS text[]))
    AS r (key, stamp, harmless)
ORDER BY r.key
ON CONFLICT (environment, kind, entity_type, key) DO UPDATE
SET run_id = excluded.run_id, stamp = excluded.stamp, harmless = excluded.harmless;

-- unseen --
-- Those of :keys that this run has not found, in their order.
SELECT k.key
FROM unnest(CAST(:keys AS text[])) AS k (key)
WHERE NOT EXISTS (
    SELECT FROM runbook.sync_seen s
    WHERE s.environment = :environment AND s.kind = :kind AND s.entity_type = :entity AND s.key = k.key
      AND s.run_id = CAST(:run_id AS bigint)
)
ORDER BY k.key;
