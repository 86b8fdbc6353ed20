-- time_columns --
-- Which columns of the tables :tables tell when a row was last written: ours, the ERP's, both or none.
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = ANY (CAST(:tables AS text[]))
  AND column_name IN ('synced_at', 'updated_at')
ORDER BY table_name, column_name;
