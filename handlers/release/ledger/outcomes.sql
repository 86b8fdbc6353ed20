-- outcomes --
-- How many releases of an environment are in each phase.
SELECT r.phase::text AS phase, count(*) AS releases
FROM runbook.release r
WHERE r.environment = :environment
GROUP BY r.phase;
