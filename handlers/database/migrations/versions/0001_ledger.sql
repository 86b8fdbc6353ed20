-- The ledger: the truth about every release. Its schema is `runbook` and belongs to us alone.
-- Times are aware and come from the database.

CREATE TYPE runbook.phase AS ENUM (
    'planned', 'approved', 'deploying', 'probing', 'canary', 'draining', 'watching', 'succeeded',
    'rolling_back', 'rolled_back', 'rollback_failed', 'held', 'refused', 'aborted'
);
CREATE TYPE runbook.verdict AS ENUM ('pass', 'fail', 'inconclusive');
CREATE TYPE runbook.finding AS ENUM ('HEALTHY', 'UNHEALTHY', 'INCONCLUSIVE', 'NO_DATA', 'SOURCE_DOWN');
CREATE TYPE runbook.operation_outcome AS ENUM ('done', 'failed', 'unreachable', 'unknown');

CREATE TABLE runbook.release (
    id            text PRIMARY KEY,
    environment   text NOT NULL,
    from_revision text NOT NULL,
    to_revision   text NOT NULL,
    requested_by  text NOT NULL,
    phase         runbook.phase NOT NULL DEFAULT 'planned',
    resume_phase  runbook.phase,
    token         bigint,
    speed         double precision NOT NULL DEFAULT 1 CHECK (speed > 0),
    reason        text NOT NULL DEFAULT '',
    plan          jsonb NOT NULL,
    plan_hash     text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    CONSTRAINT finished_exactly_in_final_phases CHECK (
        (finished_at IS NOT NULL)
        = (phase IN ('succeeded', 'rolled_back', 'rollback_failed', 'refused', 'aborted'))
    ),
    CONSTRAINT held_knows_where_to_go_on CHECK (phase <> 'held' OR resume_phase IS NOT NULL)
);
-- One live release for each environment; two managers at once meet here.
CREATE UNIQUE INDEX one_live_release ON runbook.release (environment)
    WHERE phase IN ('deploying', 'probing', 'canary', 'draining', 'watching', 'held', 'rolling_back');
CREATE INDEX release_by_time ON runbook.release (environment, created_at DESC);

-- One row for each time a release was in a phase: what it set out to do and what came of it.
CREATE TABLE runbook.phase_record (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id  text NOT NULL REFERENCES runbook.release,
    phase       runbook.phase NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    verdict     runbook.verdict,
    sentence    text NOT NULL DEFAULT '',
    detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX phase_record_by_release ON runbook.phase_record (release_id, id);

-- Intent and outcome of every change on a host: written before and after.
CREATE TABLE runbook.operation (
    id          text PRIMARY KEY,
    release_id  text NOT NULL REFERENCES runbook.release,
    phase       runbook.phase NOT NULL,
    host        text NOT NULL,
    kind        text NOT NULL,
    command     text NOT NULL,
    token       bigint NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    outcome     runbook.operation_outcome,
    exit_status integer,
    output      text NOT NULL DEFAULT ''
);
CREATE INDEX operation_by_release ON runbook.operation (release_id, started_at);

-- The exact dead letters that a release may touch, what they were before, and what became of them.
CREATE TABLE runbook.release_event (
    release_id       text NOT NULL REFERENCES runbook.release,
    event_id         uuid NOT NULL,
    position         integer NOT NULL,
    entity_type      text NOT NULL,
    source_entity_id text NOT NULL,
    batch            integer,
    former           jsonb NOT NULL DEFAULT '{}',
    redriven_at      timestamptz,
    settled_at       timestamptz,
    status           text,
    error            text,
    PRIMARY KEY (release_id, event_id)
);

-- Batch 0 is the canary; the drain counts from 1.
CREATE TABLE runbook.batch (
    release_id text NOT NULL REFERENCES runbook.release,
    number     integer NOT NULL,
    size       integer NOT NULL CHECK (size > 0),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at timestamptz,
    completed  integer,
    failed     integer,
    open       integer,
    finding    runbook.finding,
    sentence   text NOT NULL DEFAULT '',
    PRIMARY KEY (release_id, number)
);

-- Every judgement with its inputs, so that it can be explained and replayed.
CREATE TABLE runbook.judgement (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id text NOT NULL REFERENCES runbook.release,
    phase      runbook.phase NOT NULL,
    taken_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finding    runbook.finding NOT NULL,
    sentence   text NOT NULL,
    inputs     jsonb NOT NULL
);
CREATE INDEX judgement_by_release ON runbook.judgement (release_id, id);

-- One row for each environment: who may change it, until when, and the token that hosts check.
CREATE TABLE runbook.lock (
    environment  text PRIMARY KEY,
    release_id   text REFERENCES runbook.release,
    holder       text NOT NULL DEFAULT '',
    token        bigint NOT NULL DEFAULT 0,
    taken_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every time a lock was taken away from a living holder: by whom, from whom, and why.
CREATE TABLE runbook.takeover (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment   text NOT NULL,
    release_id    text NOT NULL REFERENCES runbook.release,
    former_holder text NOT NULL,
    holder        text NOT NULL,
    token         bigint NOT NULL,
    reason        text NOT NULL,
    taken_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Revisions that a release had to leave; nobody releases them again until a named person lifts this.
CREATE TABLE runbook.quarantine (
    environment text NOT NULL,
    revision    text NOT NULL,
    release_id  text NOT NULL REFERENCES runbook.release,
    reason      text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    lifted_by   text,
    lifted_at   timestamptz,
    PRIMARY KEY (environment, revision, release_id)
);

-- Files that were written about a release (evidence, report), with what proves them unchanged.
CREATE TABLE runbook.file (
    release_id text NOT NULL REFERENCES runbook.release,
    kind       text NOT NULL,
    path       text NOT NULL,
    sha256     text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (release_id, path)
);

-- Heartbeats of `runbook worker` processes, with the revision that each runs.
CREATE TABLE runbook.worker (
    owner      text PRIMARY KEY,
    host       text NOT NULL,
    pid        integer NOT NULL,
    revision   text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    beat_at    timestamptz NOT NULL DEFAULT now(),
    applied    bigint NOT NULL DEFAULT 0,
    failed     bigint NOT NULL DEFAULT 0,
    stopped_at timestamptz
);
