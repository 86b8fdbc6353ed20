-- The status view: one moment, seen whole.

-- look_at_one_moment --
-- Everything read after this in the transaction is as of one moment, and nothing is changed.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- now --
-- The database's time, by which every age is counted.
SELECT clock_timestamp();

-- newest --
-- What to look at when nobody named a release: the live one, else the newest.
SELECT id FROM runbook.release WHERE environment = :environment
ORDER BY phase IN ('deploying', 'probing', 'canary', 'draining', 'watching', 'held', 'rolling_back') DESC,
         created_at DESC, id DESC
LIMIT 1;

-- progress --
-- How far the drain is: planned events, and those that have come to rest.
SELECT count(*) AS planned, count(settled_at) AS settled FROM runbook.release_event WHERE release_id = :release_id;
