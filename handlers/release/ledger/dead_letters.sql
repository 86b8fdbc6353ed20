-- plan_events --
-- The exact dead letters that a release may touch. Planning the same event twice changes nothing.
INSERT INTO runbook.release_event (release_id, event_id, position, entity_type, source_entity_id)
SELECT :release_id, planned.event_id, planned.position, planned.entity_type, planned.source_entity_id
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:entity_types AS text[]),
            CAST(:source_entity_ids AS text[]))
     AS planned (event_id, position, entity_type, source_entity_id)
ON CONFLICT (release_id, event_id) DO NOTHING;

-- undrained --
-- Planned events that have not been redriven, in the planned order.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event WHERE release_id = :release_id AND batch IS NULL
ORDER BY position, event_id LIMIT :limit;

-- unsettled --
-- Events that were redriven and have not come to rest, with what they were before.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event
WHERE release_id = :release_id AND redriven_at IS NOT NULL AND settled_at IS NULL
ORDER BY position, event_id;

-- events --
-- Every event that a release may touch and what became of it.
SELECT event_id, position, entity_type, source_entity_id, batch, former::text, redriven_at, settled_at, status, error
FROM runbook.release_event WHERE release_id = :release_id ORDER BY position, event_id;

-- open_batch --
-- A batch begins; its number is taken once.
INSERT INTO runbook.batch (release_id, number, size) VALUES (:release_id, :number, :size)
RETURNING number, size, started_at, settled_at, completed, failed, open, finding::text, sentence;

-- mark_redriven --
-- These events belong to a batch now; what they were before is kept, so that they can be put back.
UPDATE runbook.release_event AS event
SET batch = :number, redriven_at = clock_timestamp(), former = former.value, status = NULL, error = NULL
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:formers AS jsonb[])) AS former (event_id, value)
WHERE event.release_id = :release_id AND event.event_id = former.event_id AND event.batch IS NULL;

-- mark_settled --
-- These events have come to rest, well or badly.
UPDATE runbook.release_event AS event
SET settled_at = clock_timestamp(), status = state.status, error = state.error
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:errors AS text[]))
     AS state (event_id, status, error)
WHERE event.release_id = :release_id AND event.batch = :number AND event.event_id = state.event_id;

-- settle_batch --
-- A batch has come to rest, with its sum and what the gate found. Settling again corrects an earlier sum.
UPDATE runbook.batch
SET settled_at = clock_timestamp(), completed = :completed, failed = :failed, open = :open,
    finding = CAST(:finding AS runbook.finding), sentence = :sentence
WHERE release_id = :release_id AND number = :number
RETURNING number, size, started_at, settled_at, completed, failed, open, finding::text, sentence;

-- mark_returned --
-- These events went back to the dead letters as they were: they count as not drained.
UPDATE runbook.release_event
SET batch = NULL, redriven_at = NULL, settled_at = NULL, former = '{}', status = 'returned'
WHERE release_id = :release_id AND event_id = ANY(CAST(:event_ids AS uuid[])) AND settled_at IS NULL;

-- batches --
-- A release's batches in order; number 0 is the canary.
SELECT number, size, started_at, settled_at, completed, failed, open, finding::text, sentence
FROM runbook.batch WHERE release_id = :release_id ORDER BY number;
