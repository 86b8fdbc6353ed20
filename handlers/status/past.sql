-- past --
-- The newest releases of an environment, newest first, with what was started and why.
SELECT id, environment, from_revision, to_revision, requested_by, phase::text, resume_phase::text, token, speed, reason,
       created_at, finished_at, plan -> 'scope' AS scope, coalesce(plan ->> 'reason', '') AS asked_because
FROM runbook.release WHERE environment = :environment
ORDER BY created_at DESC, id DESC LIMIT :limit;
