-- record_judgement --
-- Keep a judgement with its inputs, so that it can be explained and replayed.
INSERT INTO runbook.judgement (release_id, phase, taken_at, finding, sentence, inputs)
VALUES (:release_id, CAST(:phase AS runbook.phase), clock_timestamp(), CAST(:finding AS runbook.finding), :sentence,
        CAST(:inputs AS jsonb))
RETURNING id, phase::text, taken_at, finding::text, sentence, inputs::text;

-- judgements --
-- Every judgement about a release, in order.
SELECT id, phase::text, taken_at, finding::text, sentence, inputs::text
FROM runbook.judgement WHERE release_id = :release_id ORDER BY id;

-- stretches --
-- Judgements about a release by one rule, one after the other and with the same finding in one phase, as one row each.
WITH numbered AS (
    SELECT id, phase, taken_at, finding, sentence, coalesce(rule, '') AS rule,
        row_number() OVER (PARTITION BY rule ORDER BY id)
            - row_number() OVER (PARTITION BY rule, phase, finding ORDER BY id) AS stretch
    FROM runbook.judgement
    WHERE release_id = :release_id
)
SELECT phase::text, rule, finding::text, min(taken_at) AS taken_at, max(taken_at) AS until, count(*) AS number,
    (array_agg(sentence ORDER BY id DESC))[1] AS sentence
FROM numbered
GROUP BY rule, phase, finding, stretch
ORDER BY max(id);

-- quarantine --
-- Quarantine a revision: it is refused until a named person lifts that.
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
-- The quarantined revisions of an environment.
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
