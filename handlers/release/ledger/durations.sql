-- has_ledger --
-- Whether there is a ledger: the first plan of an environment is made before it.
SELECT to_regclass('runbook.phase_record') IS NOT NULL;

-- durations --
-- How long the newest releases of a scope that succeeded were in each of its phases, in runbook seconds.
SELECT p.release_id, p.phase::text AS phase,
       sum(extract(epoch FROM p.finished_at - p.started_at) * r.speed) AS seconds
FROM (
    SELECT id, speed FROM runbook.release
    WHERE environment = :environment AND phase = 'succeeded' AND plan -> 'scope' = to_jsonb(CAST(:phases AS text[]))
    ORDER BY created_at DESC LIMIT :most
) AS r
JOIN runbook.phase_record p ON p.release_id = r.id
WHERE p.finished_at IS NOT NULL AND p.phase::text = ANY (CAST(:phases AS text[]))
GROUP BY p.release_id, p.phase;

-- step_durations --
-- How long each step took on a host in the newest releases that changed hosts and have ended, in real seconds.
WITH newest AS (
    SELECT id FROM runbook.release
    WHERE environment = :environment AND phase IN ('succeeded', 'rolled_back') AND from_revision <> to_revision
    ORDER BY created_at DESC LIMIT :most
), steps AS (
    SELECT o.phase::text AS phase, o.kind, extract(epoch FROM o.finished_at - o.started_at) AS seconds
    FROM newest n
    JOIN runbook.operation o ON o.release_id = n.id
    WHERE o.outcome = 'done'
    UNION ALL
    SELECT p.phase::text, 'probe', CAST(host.note ->> 'seconds' AS numeric)
    FROM newest n
    JOIN runbook.phase_record p ON p.release_id = n.id
    CROSS JOIN jsonb_each(p.detail -> 'hosts') AS host (name, note)
    WHERE CAST(host.note ->> 'ok' AS boolean) AND host.note ->> 'seconds' IS NOT NULL
)
SELECT phase, kind, CAST(round(min(seconds), 1) AS float) AS shortest,
       CAST(round(CAST(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS numeric), 1) AS float) AS usual,
       CAST(round(max(seconds), 1) AS float) AS longest
FROM steps GROUP BY phase, kind;

-- rollback_durations --
-- How long the newest rollbacks took until every host was back, in real seconds.
SELECT extract(epoch FROM p.finished_at - p.started_at) AS seconds
FROM (
    SELECT id FROM runbook.release
    WHERE environment = :environment AND phase = 'rolled_back'
    ORDER BY created_at DESC LIMIT :most
) AS n
JOIN runbook.phase_record p ON p.release_id = n.id
WHERE p.phase = 'rolling_back' AND p.verdict = 'pass' AND p.finished_at IS NOT NULL;
