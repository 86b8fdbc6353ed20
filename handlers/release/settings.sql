-- stored --
-- The settings of a release: those of its plan, or those that a person gave it later. Null in older ledgers.
SELECT coalesce(plan #> '{adopted,settings}', plan -> 'settings')::text AS settings
FROM runbook.release WHERE id = :id AND created_at = :created_at;

-- adopt_settings --
-- Give a release other settings than its plan has. Plan and hash stay as they were approved.
UPDATE runbook.release
SET plan = plan || jsonb_build_object('adopted', CAST(:adopted AS jsonb) || jsonb_build_object('at', clock_timestamp()))
WHERE id = :id
RETURNING id;
