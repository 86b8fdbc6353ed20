-- What people decided about a plan that waits for approval: who, when, why, and about which plan.
CREATE TABLE runbook.approval (
    release_id text NOT NULL REFERENCES runbook.release,
    -- One person counts once, however the name is written; who has approved may still reject.
    person_key text NOT NULL,
    person     text NOT NULL CHECK (person <> ''),
    -- The login under which it was given, where there is one.
    account    text NOT NULL DEFAULT '',
    -- The command line, the Prefect page, or the board.
    way        text NOT NULL,
    plan_hash  text NOT NULL,
    is_yes     boolean NOT NULL,
    -- Whether the release may start by itself once enough people have approved it.
    starts     boolean NOT NULL DEFAULT false,
    reason     text NOT NULL CHECK (reason <> ''),
    given_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (release_id, person_key, is_yes)
);

-- Who let a release start although a freeze was active.
CREATE TABLE runbook.freeze_override (
    release_id text NOT NULL REFERENCES runbook.release,
    -- The freeze as it was told.
    what       text NOT NULL,
    person     text NOT NULL CHECK (person <> ''),
    account    text NOT NULL DEFAULT '',
    -- By which right: a role, or the person's own name in the file.
    by_right   text NOT NULL,
    reason     text NOT NULL CHECK (reason <> ''),
    given_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (release_id, what)
);
