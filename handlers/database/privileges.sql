-- session --
-- Who we are, and why this session may not write.
SELECT current_user AS user_name,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    pg_is_in_recovery() AS is_standby;

-- relations --
-- What stands in the way of each wanted table. Only catalogs are read: they need no privilege.
SELECT w.name, r.id IS NOT NULL AS exists, coalesce(r.is_reachable, false) AS is_reachable,
    coalesce(r.schema_name, split_part(w.name, '.', 1)) AS schema_name,
    ARRAY(
        SELECT p FROM unnest(string_to_array(w.privileges, ' ')) AS p
        WHERE NOT coalesce(has_table_privilege(r.id, p), true)
    ) AS missing_privileges,
    ARRAY(
        SELECT c FROM unnest(string_to_array(w.columns, ' ')) AS c
        WHERE r.id IS NOT NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.id AND a.attname = c AND NOT a.attisdropped)
    ) AS missing_columns,
    -- A serial column calls nextval as the user who inserts. An identity column does not.
    CASE WHEN w.privileges LIKE '%INSERT%' THEN ARRAY(
        SELECT CAST(CAST(s.objid AS regclass) AS text)
        FROM pg_depend s
        JOIN pg_class q ON q.oid = s.objid
        WHERE s.refobjid = r.id AND s.classid = CAST('pg_class' AS regclass) AND s.deptype = 'a'
          -- CASE keeps the order: the function refuses what is no sequence.
          AND CASE WHEN q.relkind = 'S' THEN NOT has_sequence_privilege(q.oid, 'USAGE, UPDATE') ELSE false END
    ) ELSE '{}' END AS missing_sequences,
    coalesce(row_security_active(r.id), false)
        -- A policy that lets everything through for this user hides nothing.
        AND NOT (
            EXISTS (
                SELECT FROM pg_policy p
                WHERE p.polrelid = r.id AND p.polpermissive AND p.polcmd = '*'
                  AND pg_get_expr(p.polqual, p.polrelid) = 'true'
                  AND coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'true') = 'true'
                  AND EXISTS (
                      -- Role 0 is PUBLIC.
                      SELECT FROM unnest(p.polroles) AS role (id)
                      WHERE CASE WHEN role.id = 0 THEN true ELSE pg_has_role(role.id, 'USAGE') END
                  )
            )
            AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = r.id AND NOT p.polpermissive)
        ) AS is_filtered
FROM unnest(CAST(:names AS text[]), CAST(:privileges AS text[]), CAST(:columns AS text[]))
    WITH ORDINALITY AS w (name, privileges, columns, position)
LEFT JOIN LATERAL (
    SELECT c.oid AS id, n.nspname AS schema_name,
        has_schema_privilege(n.oid, 'USAGE')
            AND (w.name LIKE '%.%' OR n.nspname = ANY (current_schemas(false))) AS is_reachable
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f')
      AND CASE WHEN w.name LIKE '%.%' THEN n.nspname || '.' || c.relname = w.name ELSE c.relname = w.name END
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    -- As the search path finds it, else in any other schema: then the schema is what is missing.
    ORDER BY array_position(current_schemas(false), n.nspname), n.nspname
    LIMIT 1
) r ON true
ORDER BY w.position;
