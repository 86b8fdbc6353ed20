-- begin_snapshot --
-- All later reads of the transaction see one moment, and nothing can be changed.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- now --
-- The database's time, by which every age is counted.
SELECT clock_timestamp();

-- progress --
-- How far the drain is: planned events, and those that have come to rest.
SELECT count(*) AS planned, count(settled_at) AS settled FROM runbook.release_event WHERE release_id = :release_id;

-- newest_operations --
-- The newest operation of each kind on each host in each phase; of one that went wrong the end of its output.
SELECT DISTINCT ON (o.phase, o.host, o.kind) o.phase::text AS phase, o.host, o.kind, o.outcome::text AS outcome,
       o.started_at, o.finished_at,
       CASE WHEN o.outcome <> 'done' THEN right(substring(rtrim(o.output, E' \t\r\n') FROM '[^\n]*$'), 300)
            ELSE '' END AS last_line
FROM runbook.operation o
WHERE o.release_id = :release_id
ORDER BY o.phase, o.host, o.kind, o.started_at DESC;
