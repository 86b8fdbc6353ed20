-- take_turn --
-- Whether nobody else is adopting; it is then our turn for as long as this connection lives. Asked again and again
-- instead of waited for: a waiting statement would itself be waited for by the indexes that the other one makes.
SELECT pg_try_advisory_lock(hashtext('runbook adopt'));

-- wait_at_most --
-- How long each of the next statements waits for a table that the application holds, in milliseconds.
SELECT set_config('lock_timeout', CAST(:milliseconds AS text), false);
