-- What people ask of a release while another process runs it: its controller reads this every second.
CREATE TABLE runbook.request (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id   text NOT NULL REFERENCES runbook.release,
    verb         text NOT NULL CHECK (verb IN ('hold', 'skip', 'abort', 'rollback')),
    requested_by text NOT NULL,
    reason       text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a controller read it. A request that stays unread has a controller that does not react.
    seen_at      timestamptz,
    answered_at  timestamptz,
    answer       text NOT NULL DEFAULT ''
);
CREATE INDEX request_by_release ON runbook.request (release_id, id);

-- The process that holds the lock, so that its death is seen at once on its own machine. A controller of an older
-- version does not write it: the value counts only while its name equals the holder.
ALTER TABLE runbook.lock ADD COLUMN process jsonb;
