-- Healing of one environment: who is at it now, and how far it has come.
CREATE TABLE runbook.heal (
    environment   text PRIMARY KEY,
    -- A claim that expires is free, and its former holder is fenced off by the number.
    claim         bigint NOT NULL DEFAULT 0,
    claimed_by    text NOT NULL DEFAULT '',
    claimed_until timestamptz,
    -- Batches grow within a round. The next one begins with one letter of each type.
    round         integer NOT NULL DEFAULT 1,
    ran_at        timestamptz,
    -- What the last run found.
    sentence      text NOT NULL DEFAULT ''
);

-- What healing has done: events taken back from dead workers, and batches of dead letters.
CREATE TABLE runbook.heal_action (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('taken_back', 'batch')),
    round       integer,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at    timestamptz,
    by          text NOT NULL,
    events      integer NOT NULL,
    completed   integer,
    failed      integer,
    -- Letters that were not finished, and are the dead letters again that they were.
    returned    integer,
    finding     runbook.finding,
    sentence    text NOT NULL DEFAULT '',
    -- The first events that were taken back.
    detail      jsonb NOT NULL DEFAULT '{}',
    CHECK ((kind = 'batch') = (round IS NOT NULL))
);
CREATE INDEX heal_action_of ON runbook.heal_action (environment, id);
-- One batch of an environment at a time is out.
CREATE UNIQUE INDEX heal_action_out ON runbook.heal_action (environment) WHERE kind = 'batch' AND ended_at IS NULL;

CREATE TABLE runbook.heal_event (
    action_id        bigint NOT NULL REFERENCES runbook.heal_action,
    event_id         uuid NOT NULL,
    entity_type      text NOT NULL,
    source_entity_id text NOT NULL,
    -- The masked error of which it had died.
    fingerprint      text NOT NULL,
    -- What it was before, to put it back.
    former           jsonb NOT NULL,
    redriven_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at       timestamptz,
    status           text,
    error            text,
    -- Whether it counts as a try: not if it came back before a worker had it.
    counts           boolean NOT NULL DEFAULT true,
    PRIMARY KEY (action_id, event_id)
);
CREATE INDEX heal_event_of ON runbook.heal_event (event_id, redriven_at);
CREATE INDEX heal_event_at ON runbook.heal_event (redriven_at);

-- Letters that healing leaves alone: after a bad batch until a time, or quarantined until a person lifts it.
CREATE TABLE runbook.heal_stop (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL,
    -- `*` stands for all types, or for all errors of a type.
    entity_type text NOT NULL,
    fingerprint text NOT NULL,
    -- Only this letter.
    event_id    uuid,
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null: until a person lifts it.
    until       timestamptz,
    times       integer NOT NULL DEFAULT 1,
    by          text NOT NULL,
    reason      text NOT NULL,
    lifted_at   timestamptz,
    lifted_by   text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX heal_stop_kind ON runbook.heal_stop (environment, entity_type, fingerprint)
    WHERE event_id IS NULL AND lifted_at IS NULL;
CREATE UNIQUE INDEX heal_stop_event ON runbook.heal_stop (environment, event_id)
    WHERE event_id IS NOT NULL AND lifted_at IS NULL;
