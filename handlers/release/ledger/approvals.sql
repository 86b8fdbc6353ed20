-- is_there --
-- Whether the ledger knows approvals. Before the next migration it does not, and a rollback must work all the same.
SELECT to_regclass('runbook.approval') IS NOT NULL;

-- give --
-- What a person decides about a plan. No row: this person has decided the same already.
INSERT INTO runbook.approval (release_id, person_key, person, account, way, plan_hash, is_yes, starts, reason)
VALUES (:release_id, :person_key, :person, :account, :way, :plan_hash, :is_yes, :starts, :reason)
ON CONFLICT DO NOTHING
RETURNING release_id;

-- given --
-- Everything that people have decided about these releases, in order.
SELECT release_id, person, account, way, plan_hash, is_yes, starts, reason, given_at
FROM runbook.approval
WHERE release_id = ANY (CAST(:release_ids AS text[]))
ORDER BY given_at, person_key;

-- override --
-- A person lets a release start in a freeze, or without its promotion.
INSERT INTO runbook.freeze_override (release_id, what, person, account, by_right, reason)
VALUES (:release_id, :what, :person, :account, :by_right, :reason)
ON CONFLICT DO NOTHING;

-- overrides --
-- In spite of what a release was let start, in order.
SELECT what, person, account, by_right, reason, given_at
FROM runbook.freeze_override WHERE release_id = :release_id ORDER BY given_at, what;

-- expired --
-- Plans of an environment that waited too long: for their approval, or for their start after it.
SELECT r.id
FROM runbook.release r
JOIN runbook.phase_record p ON p.release_id = r.id AND p.finished_at IS NULL
WHERE r.environment = :environment AND r.phase IN ('planned', 'approved') AND r.token IS NULL
  AND CAST(p.detail #>> '{approval,until}' AS timestamptz) <= clock_timestamp()
ORDER BY r.created_at;
