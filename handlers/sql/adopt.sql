-- What `runbook db adopt` looks at before it adds to the ERP's tables.

-- columns --
-- Every column of the tables named in :tables, as far as they exist, with what writing to it needs to know.
SELECT c.relname AS table_name, a.attname AS column_name, t.typname AS type_name, a.attnotnull AS not_null,
    (a.atthasdef OR a.attidentity <> '') AS has_default
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.oid = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS n (name)))
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum;

-- indexes --
-- The column that leads each whole index of these tables, and whether it alone is unique.
SELECT c.relname AS table_name, a.attname AS column_name, (i.indisunique AND i.indnkeyatts = 1) AS is_unique
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE c.oid = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS n (name)))
  AND i.indpred IS NULL AND i.indisvalid;

-- one_at_a_time --
-- Two adoptions at once wait for each other; nobody waits long for the application's own locks.
SELECT pg_advisory_xact_lock(hashtext('runbook adopt')), set_config('lock_timeout', '10s', true);
