-- is_there --
-- Whether the ledger has an outbox.
SELECT to_regclass('runbook.message') IS NOT NULL;

-- open --
-- The first message of each trouble that people were told of and that is not over, the newest ones first.
SELECT DISTINCT ON (m.environment, m.topic, m.subject, m.release_id)
    m.topic, m.subject, m.release_id, m.severity, m.sentence, m.written_at
FROM runbook.message m
WHERE m.environment = :environment AND m.over_at IS NULL AND m.topic = ANY (CAST(:topics AS text[]))
  AND m.written_at > clock_timestamp() - make_interval(days => CAST(:days AS integer))
ORDER BY m.environment, m.topic, m.subject, m.release_id, m.id
LIMIT 200;

-- messages --
-- How many deliveries of the last day were sent, wait, or were given up, and since when the oldest one waits.
SELECT count(*) FILTER (WHERE d.ended_at IS NOT NULL AND NOT d.given_up) AS sent,
    count(*) FILTER (WHERE d.ended_at IS NULL) AS waiting,
    count(*) FILTER (WHERE d.given_up) AS given_up,
    min(m.written_at) FILTER (WHERE d.ended_at IS NULL AND d.due_at <= clock_timestamp()) AS waiting_since,
    max(d.ended_at) FILTER (WHERE d.given_up) AS given_up_at,
    (array_agg(d.answer ORDER BY d.ended_at DESC) FILTER (WHERE d.given_up))[1] AS answer
FROM runbook.message m
JOIN runbook.delivery d ON d.message_id = m.id
WHERE m.environment = :environment AND m.written_at > clock_timestamp() - interval '1 day';
