-- What workers apply at this moment: a row for each batch that was claimed by row locks, without a lease in the queue. Its
-- transaction removes the row when it commits, so a row without a transaction tells of a worker that was killed.
-- Unlogged: after a crash of the server no batch is in progress, and the table is empty.
CREATE UNLOGGED TABLE runbook.in_hand (
    -- The advisory lock that the batch's transaction holds.
    batch bigint NOT NULL,
    owner text NOT NULL,
    ids   uuid[] NOT NULL,
    bytes bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 1000000);
-- Random ids cannot be compressed: trying it costs more than it saves.
ALTER TABLE runbook.in_hand ALTER COLUMN ids SET STORAGE EXTERNAL;
