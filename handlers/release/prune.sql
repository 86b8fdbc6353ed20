-- due --
-- The ended releases that are older than :days, and whose guard has ended, if they had one.
SELECT r.id FROM runbook.release r
WHERE r.environment = :environment AND r.phase = ANY (CAST(CAST(:ended AS text[]) AS runbook.phase[]))
  AND r.finished_at < now() - make_interval(days => CAST(:days AS integer))
  AND NOT EXISTS (SELECT FROM runbook.guard g WHERE g.release_id = r.id AND g.ended_at IS NULL)
  AND (EXISTS (SELECT FROM runbook.judgement j WHERE j.release_id = r.id AND j.inputs ? 'facts')
       OR EXISTS (SELECT FROM runbook.operation o WHERE o.release_id = r.id AND o.output <> '')
       OR EXISTS (SELECT FROM runbook.guard_check c WHERE c.release_id = r.id AND c.measurements <> '[]'))
ORDER BY r.finished_at;

-- hold --
-- Keep everybody from changing the release. A rollback of it that has begun meanwhile leaves nothing to hold.
SELECT id FROM runbook.release
WHERE id = :release_id AND phase = ANY (CAST(CAST(:ended AS text[]) AS runbook.phase[]))
FOR UPDATE SKIP LOCKED;

-- size --
-- How many bytes the details of a release take, as they are stored.
SELECT (SELECT coalesce(sum(pg_column_size(j.inputs)), 0) FROM runbook.judgement j
        WHERE j.release_id = :release_id AND j.inputs ? 'facts')
     + (SELECT coalesce(sum(pg_column_size(o.output)), 0) FROM runbook.operation o WHERE o.release_id = :release_id)
     + (SELECT coalesce(sum(pg_column_size(c.measurements)), 0) FROM runbook.guard_check c
        WHERE c.release_id = :release_id) AS bytes;

-- facts --
-- Keep what a look found, and with which arithmetic; drop what the gate was told of single events.
UPDATE runbook.judgement SET inputs = (inputs - 'facts') || jsonb_build_object('pruned', CURRENT_DATE)
WHERE release_id = :release_id AND inputs ? 'facts';

-- outputs --
-- Keep which command ran where and how it ended; drop what it printed.
UPDATE runbook.operation SET output = '' WHERE release_id = :release_id AND output <> '';

-- measurements --
-- Keep what a check of the guard found; drop the readings.
UPDATE runbook.guard_check SET measurements = '[]' WHERE release_id = :release_id AND measurements <> '[]';

-- messages --
-- Old messages that were sent or given up, with their deliveries. A trouble that goes on is kept.
WITH old AS (
    SELECT m.id FROM runbook.message m
    WHERE m.environment = :environment AND m.written_at < now() - make_interval(days => CAST(:days AS integer))
      AND m.addressed_at IS NOT NULL AND (m.release_id IS NOT NULL OR m.over_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM runbook.delivery d WHERE d.message_id = m.id AND d.ended_at IS NULL)
      AND NOT EXISTS (SELECT FROM runbook.release r WHERE r.id = m.release_id AND r.finished_at IS NULL)
), deliveries AS (
    DELETE FROM runbook.delivery d USING old WHERE d.message_id = old.id
)
DELETE FROM runbook.message m USING old WHERE m.id = old.id;

-- workers --
-- Workers that have given no sign for so long.
DELETE FROM runbook.worker WHERE beat_at < now() - make_interval(days => CAST(:days AS integer));

-- syncs --
-- Syncs that ended long ago. The one whose findings the next full sync compares with is kept.
WITH old AS (
    SELECT r.id FROM runbook.sync_run r
    WHERE r.environment = :environment AND r.ended_at < now() - make_interval(days => CAST(:days AS integer))
      AND NOT EXISTS (SELECT FROM runbook.sync_seen s WHERE s.run_id = r.id)
), steps AS (
    DELETE FROM runbook.sync_step s USING old WHERE s.run_id = old.id
)
DELETE FROM runbook.sync_run r USING old WHERE r.id = old.id;

-- healed --
-- What healing did with events that are no dead letters any more: its tries are counted only for those.
DELETE FROM runbook.heal_event e
WHERE e.settled_at < now() - make_interval(days => CAST(:days AS integer))
  AND EXISTS (SELECT FROM runbook.heal_action a WHERE a.id = e.action_id AND a.environment = :environment)
  AND NOT EXISTS (SELECT FROM tds_sync_queue q WHERE q.id = e.event_id AND q.status = 'dead_letter');
