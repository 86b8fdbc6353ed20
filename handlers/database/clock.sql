-- now --
-- The database's time: the one clock by which all stored times are compared.
SELECT clock_timestamp();

-- server_started --
-- Since when the server runs.
SELECT pg_postmaster_start_time();
