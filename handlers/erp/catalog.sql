-- places --
-- What each name of :tables stands for on the search path.
SELECT n.name, c.relkind::text AS kind, pg_get_userbyid(c.relowner)::text AS owner,
    pg_has_role(c.relowner, 'USAGE') AS is_ours,
    -- Where else the name is when the search path has none. No code would read a second table in another schema.
    CASE WHEN c.oid IS NULL THEN (
        SELECT string_agg(format('%I.%I', s.nspname, o.relname), ', ' ORDER BY s.nspname)
        FROM pg_class o
        JOIN pg_namespace s ON s.oid = o.relnamespace
        WHERE o.relname = n.name AND o.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND s.nspname NOT IN ('information_schema', 'runbook') AND s.nspname NOT LIKE 'pg\_%'
    ) END AS elsewhere
FROM unnest(CAST(:tables AS text[])) AS n (name)
LEFT JOIN pg_class c ON c.oid = to_regclass(n.name);

-- columns --
-- Every column of the existing tables among :tables, with what writing to it needs to know.
SELECT c.relname AS table_name, a.attname AS column_name, t.typname AS type_name, a.attnotnull AS not_null,
    (a.atthasdef OR a.attidentity <> '') AS has_default, format_type(a.atttypid, a.atttypmod) AS full_type
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.oid = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS n (name)))
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum;

-- indexes --
-- The indexes of the tables :tables: the first column, whether it alone is unique, and whether the index is valid.
SELECT c.relname AS table_name, x.relname AS name,
    -- NULL where the index begins with an expression.
    a.attname AS column_name,
    (i.indisunique AND i.indnkeyatts = 1) AS is_unique, i.indpred IS NOT NULL AS is_partial, i.indisvalid AS is_whole
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE c.oid = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS n (name)));
