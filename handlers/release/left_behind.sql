-- What a revision that was left has left behind in the ERP's queue. Reads only.

-- spell --
-- From when until when the workers of a release's revision had the queue: its first deploy, and the last time a host
-- was switched back, before which the workers were stopped.
SELECT (SELECT min(started_at) FROM runbook.phase_record WHERE release_id = :release_id AND phase = 'deploying') AS since,
       (SELECT max(started_at) FROM runbook.operation WHERE release_id = :release_id AND kind = 'back-activate') AS until;

-- kinds --
-- Live events that became dead letters in that time and are it still, equal errors together. Those that were dead
-- letters before the release, and so are in its plan, are not among them. Workers of the ERP's own may not write down
-- when they began with an event. What a drain has sent back in vain is still the release's doing.
SELECT q.entity_type::text AS raw_type, q.error_code,
       regexp_replace(left(coalesce(q.error_message, ''), 300), '[0-9]+', '0', 'g') AS error,
       count(*) AS events, min(q.created_at) AS oldest_at
FROM tds_sync_queue AS q
WHERE q.status = 'dead_letter'
  AND (coalesce(q.started_at, q.created_at) >= CAST(:since AS timestamptz)
       AND coalesce(q.started_at, q.created_at) < coalesce(CAST(:until AS timestamptz), 'infinity')
       AND NOT EXISTS (SELECT FROM runbook.release_event AS e WHERE e.release_id = :release_id AND e.event_id = q.id)
       OR EXISTS (SELECT FROM runbook.release_event AS e JOIN runbook.release AS r ON r.id = e.release_id
                  WHERE e.event_id = q.id AND r.plan->>'left_by' = :release_id))
GROUP BY 1, 2, 3 ORDER BY events DESC, 1, 2, 3 LIMIT 500;

-- ids --
-- The same events, each.
SELECT q.id
FROM tds_sync_queue AS q
WHERE q.status = 'dead_letter'
  AND (coalesce(q.started_at, q.created_at) >= CAST(:since AS timestamptz)
       AND coalesce(q.started_at, q.created_at) < coalesce(CAST(:until AS timestamptz), 'infinity')
       AND NOT EXISTS (SELECT FROM runbook.release_event AS e WHERE e.release_id = :release_id AND e.event_id = q.id)
       OR EXISTS (SELECT FROM runbook.release_event AS e JOIN runbook.release AS r ON r.id = e.release_id
                  WHERE e.event_id = q.id AND r.plan->>'left_by' = :release_id));
