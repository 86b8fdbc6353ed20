-- Questions about the ERP's tables, asked before a row is held against its payload.

-- unreadable --
-- Why the table cannot be asked for the row of a key; null when it can. Workers of the ERP's own may keep other tables.
SELECT CASE
    WHEN to_regclass(:name) IS NULL THEN 'there is no table ' || :name
    WHEN NOT has_table_privilege(to_regclass(:name), 'SELECT') THEN 'our user may not read ' || :name
    WHEN NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(:name) AND attname = :key AND NOT attisdropped
    ) THEN :name || ' has no column ' || :key
END
