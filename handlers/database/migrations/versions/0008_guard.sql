-- Who looks after a release when it has succeeded: its checks are rows that become due.
CREATE TABLE runbook.guard (
    release_id    text PRIMARY KEY REFERENCES runbook.release,
    environment   text NOT NULL,
    begun_at      timestamptz NOT NULL,
    -- When the last check is due.
    until         timestamptz NOT NULL,
    -- A person has taken the rollback over: a breach only pages.
    pages_only_by text NOT NULL DEFAULT '',
    pages_only    text NOT NULL DEFAULT '',
    ended_at      timestamptz,
    ended_by      text NOT NULL DEFAULT '',
    ended         text NOT NULL DEFAULT '',
    -- Who takes checks now. A claim that expires is free, and its former holder is fenced off by the number.
    claim         bigint NOT NULL DEFAULT 0,
    claimed_by    text NOT NULL DEFAULT '',
    claimed_until timestamptz
);
CREATE INDEX guard_open ON runbook.guard (environment) WHERE ended_at IS NULL;

CREATE TABLE runbook.guard_check (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id   text NOT NULL REFERENCES runbook.guard,
    number       integer NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('look', 'report')),
    due_at       timestamptz NOT NULL,
    -- When it was taken, or when it was found that nobody will take it.
    taken_at     timestamptz,
    skipped      boolean NOT NULL DEFAULT false,
    finding      runbook.finding,
    sentence     text NOT NULL DEFAULT '',
    measurements jsonb NOT NULL DEFAULT '[]',
    UNIQUE (release_id, number),
    CHECK (taken_at IS NOT NULL OR (NOT skipped AND finding IS NULL))
);
CREATE INDEX guard_check_open ON runbook.guard_check (release_id, due_at) WHERE taken_at IS NULL;
