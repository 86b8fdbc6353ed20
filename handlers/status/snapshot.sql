-- begin_snapshot --
-- All later reads of the transaction see one moment, and nothing can be changed.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- now --
-- The database's time, by which every age is counted.
SELECT clock_timestamp();

-- progress --
-- How far the drain is: planned events, and those that have come to rest.
SELECT count(*) AS planned, count(settled_at) AS settled FROM runbook.release_event WHERE release_id = :release_id;

-- host_steps --
-- The newest operation of each host in a phase, since its newest begin.
SELECT DISTINCT ON (o.host) o.host, o.kind, o.outcome::text AS outcome, o.started_at
FROM runbook.operation o
WHERE o.release_id = :release_id AND o.phase = CAST(:phase AS runbook.phase) AND o.started_at >= :since
ORDER BY o.host, o.started_at DESC;
