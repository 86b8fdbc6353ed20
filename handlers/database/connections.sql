-- by_state --
-- The connections of clients by their state, the most common first.
SELECT coalesce(state, 'not visible') AS state, count(*) AS connections
FROM pg_stat_activity
-- Of other users' connections we may see neither state nor kind, only that they are connected to a database.
WHERE backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL)
GROUP BY 1 ORDER BY 2 DESC, 1;

-- maximum --
-- How many connections ordinary users may have together: the server keeps some for others.
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    -- PostgreSQL 16 and newer.
    - coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0);
