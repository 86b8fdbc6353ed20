-- can_beat --
-- Whether the ledger has the table of heartbeats.
SELECT to_regclass('runbook.worker') IS NOT NULL AS can_beat;

-- beat --
-- Say that this worker lives, what it runs and what it has done so far.
INSERT INTO runbook.worker (owner, host, pid, revision, applied, failed)
VALUES (:owner, :host, :pid, :revision, :applied, :failed)
ON CONFLICT (owner) DO UPDATE
SET beat_at = now(), applied = excluded.applied, failed = excluded.failed, stopped_at = NULL;

-- stop --
-- Say that this worker has ended of its own will.
UPDATE runbook.worker SET beat_at = now(), stopped_at = now() WHERE owner = :owner;
