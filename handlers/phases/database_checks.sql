-- failed --
-- Events in status failed, newest first. A person decides about these: nothing redrives them automatically.
SELECT entity_type::text AS raw_type, error_code, error_message
FROM tds_sync_queue WHERE status = 'failed'
ORDER BY created_at DESC
-- Bounded, because they are only counted by kind.
LIMIT 10000;

-- newest --
-- When the last webhook came in: no measurement can be fresher.
SELECT max(created_at) FROM tds_sync_queue;

-- may_keep_a_ledger --
-- Whether this user can create our schema, or has it already.
SELECT has_database_privilege(current_database(), 'CREATE')
    OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'runbook' AND has_schema_privilege(oid, 'CREATE'));
