-- What people are told: a message is written first, in the transaction of what it tells where there is one.
CREATE TABLE runbook.message (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment  text NOT NULL,
    release_id   text REFERENCES runbook.release,
    topic        text NOT NULL,
    -- What it is about: a host, a bar, a source. Empty: the release.
    subject      text NOT NULL DEFAULT '',
    severity     text NOT NULL CHECK (severity IN ('page', 'warning', 'info')),
    sentence     text NOT NULL,
    written_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- It stands for all further ones of its kind, and is sent later, with their number.
    is_summary   boolean NOT NULL DEFAULT false,
    -- When the trouble that it tells of was over.
    over_at      timestamptz,
    -- When its deliveries were made, or when it was found that there will be none, and why.
    addressed_at timestamptz,
    not_sent     text NOT NULL DEFAULT '',
    CHECK (addressed_at IS NOT NULL OR not_sent = '')
);
CREATE INDEX message_open ON runbook.message (environment, id) WHERE addressed_at IS NULL;
CREATE INDEX message_trouble ON runbook.message (environment, topic) WHERE over_at IS NULL;

CREATE TABLE runbook.delivery (
    message_id    bigint NOT NULL REFERENCES runbook.message,
    -- The name of an address in the environment file; the address itself is in no table.
    address       text NOT NULL,
    due_at        timestamptz NOT NULL,
    tries         integer NOT NULL DEFAULT 0,
    first_try_at  timestamptz,
    -- Who sends it now. The claim of a sender that was killed ends.
    claimed_by    text NOT NULL DEFAULT '',
    claimed_until timestamptz,
    ended_at      timestamptz,
    given_up      boolean NOT NULL DEFAULT false,
    -- What came of the last try.
    answer        text NOT NULL DEFAULT '',
    -- By which the service continues a conversation, such as Slack's thread_ts.
    thread        text NOT NULL DEFAULT '',
    PRIMARY KEY (message_id, address),
    CHECK (ended_at IS NOT NULL OR NOT given_up)
);
CREATE INDEX delivery_open ON runbook.delivery (due_at) WHERE ended_at IS NULL;
