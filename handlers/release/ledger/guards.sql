-- is_there --
-- Whether the ledger has guards. Before the next migration it has none, and a rollback must work all the same.
SELECT to_regclass('runbook.guard') IS NOT NULL;

-- settings --
-- What the settings of a release say about its guard. Null in older ledgers: then the defaults hold.
SELECT (coalesce(plan #> '{adopted,settings}', plan -> 'settings') -> 'guard')::text AS settings
FROM runbook.release WHERE id = :release_id;

-- begin --
-- Guard a release from its end on.
INSERT INTO runbook.guard (release_id, environment, begun_at, until)
SELECT id, environment, finished_at, finished_at + make_interval(secs => :seconds)
FROM runbook.release WHERE id = :release_id
ON CONFLICT (release_id) DO NOTHING;

-- begin_checks --
-- Each check as a row with its time.
INSERT INTO runbook.guard_check (release_id, number, kind, due_at)
SELECT g.release_id, planned.number, planned.kind, g.begun_at + make_interval(secs => planned.seconds)
FROM runbook.guard g,
     unnest(CAST(:kinds AS text[]), CAST(:seconds AS float8[])) WITH ORDINALITY AS planned (kind, seconds, number)
WHERE g.release_id = :release_id
ON CONFLICT (release_id, number) DO NOTHING;

-- lock_release --
-- Lock the release's row before the guard's. Every transaction takes them in this order: no deadlock.
SELECT id FROM runbook.release WHERE id = :release_id FOR NO KEY UPDATE;

-- former --
-- The guards that a release which changes the hosts ends.
SELECT release_id FROM runbook.guard
WHERE environment = :environment AND release_id <> :release_id AND ended_at IS NULL
ORDER BY release_id;

-- end --
-- End a guard. No row: it has ended.
UPDATE runbook.guard
SET ended_at = clock_timestamp(), ended_by = :by, ended = :sentence
WHERE release_id = :release_id AND ended_at IS NULL
RETURNING release_id;

-- skip_open --
-- Mark the checks that nobody will take, with the reason.
UPDATE runbook.guard_check
SET taken_at = clock_timestamp(), skipped = true, sentence = :sentence
WHERE release_id = :release_id AND taken_at IS NULL;

-- page_only --
-- A person takes the rollback over. No row: the guard has ended.
UPDATE runbook.guard
SET pages_only_by = :by, pages_only = :reason
WHERE release_id = :release_id AND ended_at IS NULL
RETURNING release_id;

-- get --
-- The guard of a release.
SELECT release_id, environment, begun_at, until, pages_only_by, pages_only, ended_at, ended_by, ended, claimed_by,
       claimed_until > clock_timestamp() AS is_claimed
FROM runbook.guard WHERE release_id = :release_id;

-- newest --
-- The release of an environment that was guarded last.
SELECT release_id FROM runbook.guard WHERE environment = :environment ORDER BY begun_at DESC LIMIT 1;

-- checks --
-- The checks of a release, in order; a report comes after the look of the same time.
SELECT id, release_id, number, kind, due_at, taken_at, skipped, finding::text, sentence, measurements::text
FROM runbook.guard_check WHERE release_id = :release_id ORDER BY number;

-- open --
-- The guarded releases of an environment, and whether a check of each is due.
SELECT g.release_id, EXISTS (
    SELECT FROM runbook.guard_check c
    WHERE c.release_id = g.release_id AND c.taken_at IS NULL AND c.due_at <= clock_timestamp()) AS is_due
FROM runbook.guard g
WHERE g.environment = :environment AND g.ended_at IS NULL
ORDER BY g.begun_at;

-- claim --
-- Take the checks of a guard for a while, provided one is due and nobody else has them.
UPDATE runbook.guard g
SET claim = g.claim + 1, claimed_by = :by, claimed_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE g.release_id = :release_id AND g.ended_at IS NULL
  AND (g.claimed_until IS NULL OR g.claimed_until <= clock_timestamp())
  AND EXISTS (SELECT FROM runbook.guard_check c
              WHERE c.release_id = g.release_id AND c.taken_at IS NULL AND c.due_at <= clock_timestamp())
RETURNING g.claim;

-- fence --
-- Lock the guard until the transaction ends, provided the claim is still ours and the guard has not ended.
SELECT claim FROM runbook.guard
WHERE release_id = :release_id AND claim = :claim AND claimed_until > clock_timestamp() AND ended_at IS NULL
FOR NO KEY UPDATE;

-- free --
-- Give a claim back, provided it is still ours.
UPDATE runbook.guard SET claimed_until = NULL, claimed_by = ''
WHERE release_id = :release_id AND claim = :claim;

-- take --
-- Write down what a check has found. No row: it was taken.
UPDATE runbook.guard_check
SET taken_at = clock_timestamp(), finding = CAST(:finding AS runbook.finding), sentence = :sentence,
    measurements = CAST(:measurements AS jsonb)
WHERE id = :id AND taken_at IS NULL
RETURNING id;

-- skip --
-- Mark checks that another one stands for.
UPDATE runbook.guard_check
SET taken_at = clock_timestamp(), skipped = true, sentence = :sentence
WHERE id = ANY (CAST(:ids AS bigint[])) AND taken_at IS NULL;
