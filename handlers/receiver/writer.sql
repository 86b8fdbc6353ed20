-- lock_records --
-- Lock these records until this transaction ends: two receivers may get the same webhook.
-- A lock that is not free within two seconds fails the statement, and the source sends its call again.
SELECT set_config('lock_timeout', '2s', true),
    (SELECT count(pg_advisory_xact_lock(n.number))
     FROM (SELECT DISTINCT hashtextextended(name, 0) AS number
           FROM unnest(CAST(:names AS text[])) AS a (name)
           -- All take the locks in one order: no deadlock.
           ORDER BY number) AS n);
