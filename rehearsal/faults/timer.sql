-- state --
-- The phase of a release, and whether a controller holds its lock.
SELECT r.phase::text AS phase,
       EXISTS (SELECT FROM runbook.lock l WHERE l.release_id = r.id AND l.expires_at > clock_timestamp()) AS is_locked
FROM runbook.release r WHERE r.id = :release_id;
