-- blocking --
-- Sessions for which others have waited longer than is usual. Of other roles the state may be hidden, the wait is not.
SELECT blocker.pid, coalesce(blocker.usename, 'unknown') AS role, coalesce(blocker.application_name, '') AS program,
       coalesce(blocker.state, 'unknown') AS state, count(DISTINCT waiting.pid) AS sessions,
       extract(epoch FROM max(clock_timestamp() - waiting.query_start))::float AS seconds
FROM pg_stat_activity waiting
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS by (pid)
JOIN pg_stat_activity blocker ON blocker.pid = by.pid
WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock'
  AND waiting.query_start < clock_timestamp() - make_interval(secs => :seconds)
GROUP BY blocker.pid, blocker.usename, blocker.application_name, blocker.state ORDER BY seconds DESC LIMIT 20;

-- idle --
-- Transactions that were left open: they keep their row locks, and VACUUM removes nothing that is younger.
SELECT pid, coalesce(usename, 'unknown') AS role, coalesce(application_name, '') AS program,
       extract(epoch FROM clock_timestamp() - state_change)::float AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()
  AND state_change < clock_timestamp() - make_interval(secs => :seconds)
ORDER BY seconds DESC LIMIT 20;

-- prepared --
-- Prepared transactions outlive their session, and their locks with them.
SELECT gid, owner AS role, extract(epoch FROM clock_timestamp() - prepared)::float AS seconds
FROM pg_prepared_xacts WHERE database = current_database()
  AND prepared < clock_timestamp() - make_interval(secs => :seconds)
ORDER BY prepared LIMIT 20;

-- server --
-- What a bug report must name of the server.
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
       current_setting('TimeZone') AS time_zone, current_setting('statement_timeout') AS statement_timeout,
       current_setting('idle_in_transaction_session_timeout') AS idle_timeout,
       current_setting('max_connections') AS max_connections;
