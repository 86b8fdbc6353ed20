-- ask --
-- A person asks the controller of a release for something.
INSERT INTO runbook.request (release_id, verb, requested_by, reason)
VALUES (:release_id, :verb, :requested_by, :reason)
RETURNING id;

-- get --
-- One request, with what came of it.
SELECT id, verb, requested_by, reason, requested_at, seen_at, answered_at, answer
FROM runbook.request WHERE id = :id;

-- see --
-- The open requests of a release, marked as seen by its controller.
UPDATE runbook.request SET seen_at = coalesce(seen_at, clock_timestamp())
WHERE release_id = :release_id AND answered_at IS NULL
RETURNING id, verb, requested_by, reason, requested_at, seen_at, answered_at, answer;

-- answer --
-- Every open request of a release has been answered.
UPDATE runbook.request SET answered_at = clock_timestamp(), answer = :answer
WHERE release_id = :release_id AND answered_at IS NULL;
