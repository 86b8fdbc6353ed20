-- unreadable --
-- Why the row of a key cannot be read; NULL when it can. The ERP's own workers may write to other tables.
SELECT CASE
    WHEN to_regclass(:name) IS NULL THEN 'there is no table ' || :name
    WHEN NOT has_table_privilege(to_regclass(:name), 'SELECT') THEN 'our user may not read ' || :name
    WHEN NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(:name) AND attname = :key AND NOT attisdropped
    ) THEN :name || ' has no column ' || :key
END;

-- types --
-- The type of each column, as a cast writes it.
SELECT attname AS name, format_type(atttypid, atttypmod) AS type
FROM pg_attribute
WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped;
