-- intend --
-- Write a change of a host down before it is made. The same id again is the same intention, made after a restart.
INSERT INTO runbook.operation (id, release_id, phase, host, kind, command, token, started_at)
VALUES (:id, :release_id, CAST(:phase AS runbook.phase), :host, :kind, :command, :token,
        clock_timestamp() - make_interval(secs => :seconds_ago))
ON CONFLICT (id) DO NOTHING;

-- confirm --
-- Write down what came of it. A certain outcome stays; only an uncertain one is replaced by a later answer.
UPDATE runbook.operation
SET finished_at = clock_timestamp() - make_interval(secs => :seconds_ago),
    outcome = CAST(:outcome AS runbook.operation_outcome),
    exit_status = :exit_status, output = :output
WHERE id = :id AND (outcome IS NULL OR outcome IN ('unreachable', 'unknown'));

-- operation --
-- One operation.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation WHERE id = :id;

-- open_operations --
-- Intents without a confirmed outcome: after a restart the hosts are asked about these first.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation
WHERE release_id = :release_id AND (outcome IS NULL OR outcome IN ('unreachable', 'unknown'))
ORDER BY started_at, id;

-- operations --
-- Every change that a release made on hosts, in order.
SELECT id, phase::text, host, kind, command, token, started_at, finished_at, outcome::text, exit_status, output
FROM runbook.operation WHERE release_id = :release_id ORDER BY started_at, id;
