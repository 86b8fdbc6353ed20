-- is_there --
-- Whether there is a ledger at all. Without one no release has ever run here.
SELECT to_regclass('runbook.release') IS NOT NULL;

-- of_commit --
-- The newest runs of an environment that deployed this commit, or proved it by hand, newest first.
SELECT r.id, r.phase::text, r.reason, r.finished_at,
       ARRAY(SELECT jsonb_array_elements_text(r.plan -> 'scope')) AS scope,
       ARRAY(SELECT p.phase::text FROM runbook.phase_record p
             WHERE p.release_id = r.id AND jsonb_exists(p.detail, 'skipped_by') ORDER BY p.id) AS skipped
FROM runbook.release r
WHERE r.environment = :environment AND r.to_revision = :revision
ORDER BY r.created_at DESC, r.id DESC LIMIT :limit;
