-- time_range --
-- From when until when the workers of a release's revision had the queue.
SELECT (SELECT min(started_at) FROM runbook.phase_record
        WHERE release_id = :release_id AND phase = 'deploying') AS since,
       -- Its workers were stopped before the last host was switched back.
       (SELECT max(started_at) FROM runbook.operation
        WHERE release_id = :release_id AND kind = 'back-activate') AS until;

-- kinds --
-- Live events that became dead letters in that time and still are, grouped by error.
SELECT q.entity_type::text AS raw_type, q.error_code,
       regexp_replace(left(coalesce(q.error_message, ''), 300), '[0-9]+', '0', 'g') AS error,
       count(*) AS events, min(q.created_at) AS oldest_at
FROM tds_sync_queue AS q
WHERE q.status = 'dead_letter' AND q.source_entity_id <> CAST(:synthetic AS text)
  -- Twin of `ids`. The ERP's own workers may not write down when they started an event.
  AND (coalesce(q.started_at, q.created_at) >= CAST(:since AS timestamptz)
       AND coalesce(q.started_at, q.created_at) < coalesce(CAST(:until AS timestamptz), 'infinity')
       -- Those in the plan were dead letters before the release, and so were those of healing.
       AND q.id <> ALL (CAST(:healed AS uuid[]))
       AND NOT EXISTS (SELECT FROM runbook.release_event AS e WHERE e.release_id = :release_id AND e.event_id = q.id)
       -- Those that a drain has redriven in vain are still the release's doing.
       OR EXISTS (SELECT FROM runbook.release_event AS e JOIN runbook.release AS r ON r.id = e.release_id
                  WHERE e.event_id = q.id AND r.plan->>'left_by' = :release_id))
GROUP BY 1, 2, 3 ORDER BY events DESC, 1, 2, 3 LIMIT 500;

-- ids --
-- The same events, each.
SELECT q.id
FROM tds_sync_queue AS q
WHERE q.status = 'dead_letter' AND q.source_entity_id <> CAST(:synthetic AS text)
  AND (coalesce(q.started_at, q.created_at) >= CAST(:since AS timestamptz)
       AND coalesce(q.started_at, q.created_at) < coalesce(CAST(:until AS timestamptz), 'infinity')
       AND q.id <> ALL (CAST(:healed AS uuid[]))
       AND NOT EXISTS (SELECT FROM runbook.release_event AS e WHERE e.release_id = :release_id AND e.event_id = q.id)
       OR EXISTS (SELECT FROM runbook.release_event AS e JOIN runbook.release AS r ON r.id = e.release_id
                  WHERE e.event_id = q.id AND r.plan->>'left_by' = :release_id));
