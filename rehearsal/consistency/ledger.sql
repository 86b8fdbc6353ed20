-- release --
-- The release, what runs by its record, and whether its lock is held.
SELECT r.phase::text AS phase, r.from_revision, r.to_revision, r.speed, r.finished_at IS NOT NULL AS is_finished,
       EXISTS (
           SELECT FROM runbook.lock l WHERE l.release_id = r.id AND l.expires_at > clock_timestamp()
       ) AS is_locked
FROM runbook.release r WHERE r.id = :release_id;

-- unconfirmed --
-- Operations without an outcome.
SELECT id FROM runbook.operation WHERE release_id = :release_id AND outcome IS NULL;

-- open_phases --
-- The phases that are not closed: only the present one may be.
SELECT phase::text AS phase FROM runbook.phase_record WHERE release_id = :release_id AND finished_at IS NULL;

-- batches --
-- Batches that are not settled, or whose size is not the number of their events. A rollback takes events out of them.
SELECT b.number
FROM runbook.batch b
JOIN runbook.release r ON r.id = b.release_id
WHERE b.release_id = :release_id
  AND r.phase = 'succeeded'
  AND (b.settled_at IS NULL
       OR b.size <> (SELECT count(*) FROM runbook.release_event e WHERE e.release_id = b.release_id AND e.batch = b.number));

-- others --
-- Other releases that own the environment, or wait to begin.
SELECT id, phase::text AS phase FROM runbook.release
WHERE id <> :release_id AND finished_at IS NULL;

-- watched --
-- The seconds from the first begin of the watch to its end.
SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds
FROM runbook.phase_record WHERE release_id = :release_id AND phase = 'watching';

-- limits --
-- What the gate of the release still held of the intake when it had finished. A limit that is lifted ends at that moment.
SELECT CASE WHEN entity_type = '*' THEN 'all types' ELSE entity_type END FROM runbook.intake
WHERE set_by = :gate
  AND until > (SELECT finished_at + interval '20 seconds' FROM runbook.release WHERE id = :release_id)
ORDER BY entity_type;

-- quarantined --
-- Whether the released revision is in quarantine.
SELECT EXISTS (SELECT FROM runbook.quarantine WHERE release_id = :release_id AND lifted_at IS NULL) AS is_quarantined;
