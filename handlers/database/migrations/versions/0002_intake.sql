-- How many events workers may take from the queue in each ten seconds, of one kind of record or of all ('*'). Read by
-- the claim of every worker. A limit always ends by itself: a controller that died must never stop the queue for good.
CREATE TABLE runbook.intake (
    entity_type     text PRIMARY KEY,
    per_ten_seconds integer NOT NULL CHECK (per_ten_seconds >= 0),
    until           timestamptz NOT NULL,
    set_by          text NOT NULL,
    reason          text NOT NULL,
    set_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What was taken in the last ten seconds: when, and how many.
    taken_at        timestamptz[] NOT NULL DEFAULT '{}',
    taken           integer[] NOT NULL DEFAULT '{}',
    CONSTRAINT never_for_good CHECK (until <= set_at + interval '1 day')
);
