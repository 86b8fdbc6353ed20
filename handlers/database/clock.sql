-- now --
-- The database's time: the one clock by which all stored times are compared.
SELECT clock_timestamp();
