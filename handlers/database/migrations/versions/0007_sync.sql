-- The syncs from the source: what each has read so far, so that one that was killed goes on where it was.
CREATE TABLE runbook.sync_run (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('full', 'incremental', 'stock')),
    entity_types text[] NOT NULL,
    requested_by text NOT NULL,
    -- Whether it may delete more than the environment's share.
    deletes_all  boolean NOT NULL DEFAULT false,
    -- Who carries it: whoever takes it over writes another one, and the former one's writes change nothing.
    owner        uuid NOT NULL,
    state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'waiting', 'stopped', 'done', 'replaced')),
    sentence     text NOT NULL DEFAULT '',
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the source gives calls again, for one that waits.
    resume_at    timestamptz,
    ended_at     timestamptz,
    CONSTRAINT ended_exactly_in_final_states CHECK ((ended_at IS NOT NULL) = (state IN ('done', 'replaced')))
);
-- One sync of a kind at a time.
CREATE UNIQUE INDEX one_open_sync ON runbook.sync_run (environment, kind) WHERE ended_at IS NULL;
CREATE INDEX sync_run_by_time ON runbook.sync_run (environment, started_at DESC);

-- One row for each entity type of a run: the place where it goes on, and its counts.
CREATE TABLE runbook.sync_step (
    run_id      bigint NOT NULL REFERENCES runbook.sync_run,
    entity_type text NOT NULL,
    stage       text NOT NULL DEFAULT 'listing' CHECK (stage IN ('listing', 'removing', 'done')),
    -- The source's time when it was begun, and from when on changes are read; NULL: everything.
    read_at     timestamptz,
    since       timestamptz,
    pass        integer NOT NULL DEFAULT 1,
    page        integer NOT NULL DEFAULT 1,
    -- Rows of this pass that no pass before had.
    fresh       bigint NOT NULL DEFAULT 0,
    after_key   text NOT NULL DEFAULT '',
    expected    bigint,
    listed      bigint NOT NULL DEFAULT 0,
    read        bigint NOT NULL DEFAULT 0,
    queued      bigint NOT NULL DEFAULT 0,
    deleted     bigint NOT NULL DEFAULT 0,
    unreadable  bigint NOT NULL DEFAULT 0,
    calls       bigint NOT NULL DEFAULT 0,
    sentence    text NOT NULL DEFAULT '',
    PRIMARY KEY (run_id, entity_type)
);

-- Up to when the changes of an entity type were read, by the source's clock.
CREATE TABLE runbook.sync_cursor (
    environment text NOT NULL,
    entity_type text NOT NULL,
    read_at     timestamptz NOT NULL,
    -- How many records the last full sync found.
    records     bigint,
    PRIMARY KEY (environment, entity_type)
);

-- The records that the newest run of a kind has found in the source's lists: what a full one has not is deleted there.
CREATE TABLE runbook.sync_seen (
    environment text NOT NULL,
    kind        text NOT NULL,
    entity_type text NOT NULL,
    key         text NOT NULL,
    run_id      bigint NOT NULL,
    -- Its change time in the list: the same row is not looked at twice in a run.
    stamp       timestamptz,
    -- How its list row differs from what is stored, where the record itself does not.
    harmless    text,
    PRIMARY KEY (environment, kind, entity_type, key)
);

-- Calls of the source's API by day (UTC).
CREATE TABLE runbook.sync_day (
    environment text NOT NULL,
    day         date NOT NULL,
    calls       bigint NOT NULL,
    PRIMARY KEY (environment, day)
);
