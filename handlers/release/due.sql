-- now --
-- The database's time, by which every age is counted.
SELECT clock_timestamp();
