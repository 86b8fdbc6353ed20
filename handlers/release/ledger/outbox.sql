-- is_there --
-- Whether the ledger has an outbox. Before the next migration it has none, and a rollback must work all the same.
SELECT to_regclass('runbook.message') IS NOT NULL;

-- serialize --
-- One writer of an environment at a time: two never both write the third one, nor wait for each other's messages.
SELECT pg_advisory_xact_lock(hashtextextended('outbox ' || :environment, 0));

-- of_its_kind --
-- How many of this kind were written lately, since the trouble was over the last time.
SELECT count(*) FROM runbook.message
WHERE environment = :environment AND release_id IS NOT DISTINCT FROM :release_id AND topic = :topic
  AND over_at IS NULL AND written_at > clock_timestamp() - make_interval(secs => :window_seconds);

-- is_told --
-- Whether this trouble was told, and is not over.
SELECT EXISTS (SELECT FROM runbook.message
               WHERE environment = :environment AND release_id IS NOT DISTINCT FROM :release_id AND topic = :topic
                 AND subject = :subject AND over_at IS NULL);

-- write --
-- Keep a message. One that will not be sent says why.
INSERT INTO runbook.message (environment, release_id, topic, subject, severity, sentence, is_summary, addressed_at,
                             not_sent)
VALUES (:environment, :release_id, :topic, :subject, :severity, :sentence, :is_summary,
        CASE WHEN :not_sent <> '' THEN clock_timestamp() END, :not_sent)
RETURNING id;

-- over --
-- The trouble is over: the messages that told of it.
UPDATE runbook.message SET over_at = clock_timestamp()
WHERE environment = :environment AND release_id IS NOT DISTINCT FROM :release_id AND over_at IS NULL
  AND topic = ANY (CAST(:topics AS text[])) AND (subject = :subject OR :subject = '')
RETURNING id;

-- drop_summaries --
-- A summary that was not sent is no news any more once the trouble is over.
UPDATE runbook.message SET addressed_at = clock_timestamp(), not_sent = 'the trouble was over before'
WHERE id = ANY (CAST(:ids AS bigint[])) AND is_summary AND addressed_at IS NULL;

-- is_due --
-- Whether anything is to be addressed or sent now, or is being sent.
SELECT EXISTS (SELECT FROM runbook.message
               WHERE environment = :environment AND addressed_at IS NULL
                 AND (NOT is_summary OR written_at <= clock_timestamp() - make_interval(secs => :summary_seconds)))
    OR EXISTS (SELECT FROM runbook.delivery d JOIN runbook.message m ON m.id = d.message_id
               WHERE m.environment = :environment AND d.ended_at IS NULL
                 AND (d.due_at <= clock_timestamp() OR d.claimed_until > clock_timestamp()));

-- to_address --
-- The messages that have no deliveries yet. Another sender skips what we hold.
SELECT id, severity, clock_timestamp() AS now,
       written_at <= clock_timestamp() - make_interval(secs => CASE severity
           WHEN 'page' THEN CAST(:stale_page_seconds AS float8) ELSE CAST(:stale_seconds AS float8) END) AS is_stale
FROM runbook.message
WHERE environment = :environment AND addressed_at IS NULL
  AND (NOT is_summary OR written_at <= clock_timestamp() - make_interval(secs => :summary_seconds))
ORDER BY id
LIMIT 500
FOR UPDATE SKIP LOCKED;

-- address --
-- Make the deliveries of a message, one for each address.
INSERT INTO runbook.delivery (message_id, address, due_at)
SELECT :id, address, :due_at FROM unnest(CAST(:addresses AS text[])) AS address
ON CONFLICT DO NOTHING;

-- addressed --
-- Its deliveries are made, or there will be none.
UPDATE runbook.message SET addressed_at = clock_timestamp(), not_sent = :not_sent WHERE id = :id;

-- claim --
-- Take the deliveries that are due, the oldest messages first, a few for each address. Others skip them.
WITH due AS (
    SELECT d.message_id, d.address FROM runbook.delivery d JOIN runbook.message m ON m.id = d.message_id
    WHERE m.environment = :environment AND d.ended_at IS NULL AND d.due_at <= clock_timestamp()
      AND (d.claimed_until IS NULL OR d.claimed_until <= clock_timestamp())
      AND (:only = 0 OR d.message_id = :only)
    ORDER BY d.message_id
    LIMIT :limit
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE runbook.delivery d
SET claimed_by = :by, claimed_until = clock_timestamp() + make_interval(secs => :seconds)
FROM due WHERE d.message_id = due.message_id AND d.address = due.address
RETURNING d.message_id, d.address;

-- begin_try --
-- Extend our claim right before the sending, and count the try. No row: somebody else has it now.
UPDATE runbook.delivery
SET tries = tries + 1, first_try_at = coalesce(first_try_at, clock_timestamp()),
    claimed_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE message_id = :message_id AND address = :address AND claimed_by = :by AND ended_at IS NULL
RETURNING tries, clock_timestamp() - first_try_at AS trying;

-- end --
-- It is sent, or given up.
UPDATE runbook.delivery
SET ended_at = clock_timestamp(), given_up = :given_up, answer = :answer, thread = :thread, claimed_by = '',
    claimed_until = NULL
WHERE message_id = :message_id AND address = :address AND claimed_by = :by AND ended_at IS NULL;

-- later --
-- It was not taken: give it back until its next try.
UPDATE runbook.delivery
SET due_at = clock_timestamp() + make_interval(secs => :seconds), answer = :answer, claimed_by = '',
    claimed_until = NULL
WHERE message_id = :message_id AND address = :address AND claimed_by = :by AND ended_at IS NULL;

-- message --
-- A message with what is needed to write it out.
SELECT m.id, m.environment, m.release_id, m.topic, m.subject, m.severity, m.sentence, m.is_summary,
       r.from_revision, r.to_revision, r.requested_by,
       (SELECT count(*) FROM runbook.message o
        WHERE o.environment = m.environment AND o.release_id IS NOT DISTINCT FROM m.release_id
          AND o.topic = m.topic AND o.not_sent <> '' AND o.over_at IS NOT DISTINCT FROM m.over_at
          AND o.id > m.id AND o.written_at < m.written_at + interval '1 hour') AS more
FROM runbook.message m LEFT JOIN runbook.release r ON r.id = m.release_id
WHERE m.id = :id;

-- thread --
-- The thread of a release at an address: that of the first message that was sent there.
SELECT d.thread FROM runbook.delivery d JOIN runbook.message m ON m.id = d.message_id
WHERE m.release_id = :release_id AND d.address = :address AND d.thread <> ''
ORDER BY d.message_id LIMIT 1;

-- list --
-- The newest messages, with what came of them at each address.
SELECT m.id, m.release_id, m.topic, m.severity, m.sentence, m.written_at, m.addressed_at, m.not_sent, d.address,
       d.due_at, d.tries, d.ended_at, coalesce(d.given_up, false) AS given_up, coalesce(d.answer, '') AS answer
FROM (SELECT * FROM runbook.message WHERE environment = :environment ORDER BY id DESC LIMIT :limit) m
LEFT JOIN runbook.delivery d ON d.message_id = m.id
ORDER BY m.id, d.address;
