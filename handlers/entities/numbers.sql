-- unique_columns --
-- The unique indexes of :table over whole columns: their columns in order, and whether each may be NULL.
SELECT array_agg(a.attname::text ORDER BY k.at) AS names, array_agg(NOT a.attnotnull ORDER BY k.at) AS nullable
FROM pg_index i
CROSS JOIN LATERAL unnest(CAST(i.indkey AS int2[])) WITH ORDINALITY AS k (number, at)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass(:table) AND i.indisunique AND i.indisvalid AND NOT i.indisprimary
  -- An index over an expression, or over some rows, cannot be compared by its columns: its violations are waited out.
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.at <= i.indnkeyatts
GROUP BY i.indexrelid
ORDER BY i.indexrelid;
