-- is_there --
-- Whether the ledger has healing. Before the next migration it has none, and a rollback must work all the same.
SELECT to_regclass('runbook.heal_event') IS NOT NULL;

-- claim --
-- Take the healing of an environment for a while, provided nobody else has it.
INSERT INTO runbook.heal AS h (environment, claim, claimed_by, claimed_until)
VALUES (:environment, 1, :by, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (environment) DO UPDATE
SET claim = h.claim + 1, claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
WHERE h.claimed_until IS NULL OR h.claimed_until <= clock_timestamp()
RETURNING h.claim;

-- fence --
-- Lock the healing until the transaction ends, provided the claim is still ours.
SELECT round FROM runbook.heal
WHERE environment = :environment AND claim = :claim AND claimed_until > clock_timestamp()
FOR NO KEY UPDATE;

-- free --
-- Give a claim back, with what the run found.
UPDATE runbook.heal
SET claimed_until = NULL, claimed_by = '',
    ran_at = CASE WHEN :sentence = '' THEN ran_at ELSE clock_timestamp() END,
    sentence = CASE WHEN :sentence = '' THEN sentence ELSE :sentence END
WHERE environment = :environment AND claim = :claim;

-- state --
-- How far the healing of an environment has come, and who has it now.
SELECT round, ran_at, sentence, CASE WHEN claimed_until > clock_timestamp() THEN claimed_by ELSE '' END AS claimed_by
FROM runbook.heal WHERE environment = :environment;

-- end_round --
-- The next batch begins with one letter of each type again.
UPDATE runbook.heal SET round = round + 1 WHERE environment = :environment;

-- taken_back --
-- Events that came back from dead workers.
INSERT INTO runbook.heal_action (environment, kind, by, events, sentence, detail, ended_at)
VALUES (:environment, 'taken_back', :by, :events, :sentence, CAST(:detail AS jsonb), clock_timestamp())
RETURNING id;

-- begin_batch --
-- A batch begins. The index on what is out refuses a second one.
INSERT INTO runbook.heal_action (environment, kind, round, by, events)
VALUES (:environment, 'batch', :round, :by, :events)
RETURNING id;

-- begin_events --
-- The letters of a batch, with what they were before.
INSERT INTO runbook.heal_event (action_id, event_id, entity_type, source_entity_id, fingerprint, former)
SELECT :action, letter.id, letter.entity, letter.key, letter.fingerprint, letter.former
FROM unnest(CAST(:ids AS uuid[]), CAST(:entities AS text[]), CAST(:keys AS text[]), CAST(:fingerprints AS text[]),
            CAST(:formers AS jsonb[])) AS letter (id, entity, key, fingerprint, former);

-- out --
-- The batch that is out, if one is, and for how long.
SELECT id, round, begun_at, by, events, extract(epoch FROM clock_timestamp() - begun_at)::float8 AS seconds
FROM runbook.heal_action
WHERE environment = :environment AND kind = 'batch' AND ended_at IS NULL;

-- events --
-- The letters of one round, or of one batch.
SELECT e.action_id AS batch, e.event_id, e.entity_type, e.source_entity_id, e.fingerprint, e.former::text,
       e.redriven_at, e.settled_at, e.status, e.error, e.counts
FROM runbook.heal_event e JOIN runbook.heal_action a ON a.id = e.action_id
WHERE a.environment = :environment AND a.kind = 'batch'
  AND (a.round = CAST(:round AS integer) OR CAST(:round AS integer) IS NULL)
  AND (a.id = CAST(:action AS bigint) OR CAST(:action AS bigint) IS NULL)
ORDER BY e.action_id, e.event_id;

-- settle_events --
-- These letters have come to rest, or are the dead letters again that they were.
UPDATE runbook.heal_event AS e
SET settled_at = clock_timestamp(), status = s.status, error = s.error, counts = s.counts
FROM unnest(CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:errors AS text[]), CAST(:counts AS boolean[]))
     AS s (id, status, error, counts)
WHERE e.action_id = :action AND e.event_id = s.id AND e.settled_at IS NULL;

-- end_batch --
-- A batch is over, with its sum and what the gate found.
UPDATE runbook.heal_action a
SET ended_at = clock_timestamp(), finding = CAST(:finding AS runbook.finding), sentence = :sentence,
    completed = n.completed, failed = n.failed, returned = n.returned
FROM (
    SELECT count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status IN ('failed', 'dead_letter')) AS failed,
        count(*) FILTER (WHERE status = 'returned') AS returned
    FROM runbook.heal_event WHERE action_id = :action
) n
WHERE a.id = :action AND a.ended_at IS NULL;

-- history --
-- What healing has done, the newest first.
SELECT id, kind, round, begun_at, ended_at, by, events, completed, failed, returned, finding::text, sentence
FROM runbook.heal_action WHERE environment = :environment
ORDER BY id DESC LIMIT :limit;

-- tries --
-- How often healing has tried each of these events, and when last.
SELECT event_id, count(*) FILTER (WHERE counts) AS tries, max(redriven_at) FILTER (WHERE counts) AS last_at
FROM runbook.heal_event WHERE event_id = ANY (CAST(:ids AS uuid[]))
GROUP BY event_id;

-- replays --
-- What healing has sent back since :since, or before it and was still out then: it is no live traffic.
SELECT event_id AS id, max(redriven_at) AS at
FROM runbook.heal_event
WHERE redriven_at >= CAST(:since AS timestamptz) OR settled_at >= CAST(:since AS timestamptz) OR settled_at IS NULL
GROUP BY event_id;
