-- take_turn --
-- Whether no other adoption runs; the lock is then ours until this connection closes.
-- It is polled: CREATE INDEX CONCURRENTLY of the other adoption would wait for a statement that waits.
SELECT pg_try_advisory_lock(hashtext('runbook adopt'));

-- wait_at_most --
-- How long each of the next statements waits for a table that the application holds, in milliseconds.
SELECT set_config('lock_timeout', CAST(:milliseconds AS text), false);
