-- lost --
-- Events that were received and are not in the queue: those of the start, and the given ones.
SELECT known.id
FROM (SELECT id FROM rehearsal.seeded UNION SELECT unnest(CAST(:sent AS uuid[]))) known
WHERE NOT EXISTS (SELECT FROM tds_sync_queue q WHERE q.id = known.id);

-- twice --
-- Events that were completed more than once, or changed after they were completed.
SELECT event_id AS id
FROM rehearsal.change
GROUP BY event_id
HAVING count(*) FILTER (WHERE after = 'completed') > 1 OR bool_or(before = 'completed');

-- in_hand --
-- Events that a worker has not ended: with a lease, or without one, as of a killed worker that nobody took back.
SELECT id FROM tds_sync_queue WHERE status = 'processing'
UNION
SELECT unnest(ids) FROM runbook.in_hand;

-- undue --
-- Planned dead letters that do not agree with what the release recorded about them, and what they are now.
SELECT e.event_id AS id, q.status::text AS status, q.attempt_count, s.attempt_count AS attempts_before, e.status AS recorded,
       CASE
           WHEN e.redriven_at IS NULL THEN 'was never sent to the workers, and is not as it was'
           WHEN q.status = 'dead_letter' THEN 'was restored, and is not as it was'
           ELSE 'has another status in the ledger'
       END AS what
FROM runbook.release_event e
JOIN runbook.release r ON r.id = e.release_id
JOIN rehearsal.seeded s ON s.id = e.event_id
LEFT JOIN tds_sync_queue q ON q.id = e.event_id
WHERE e.release_id = :release_id
  AND (
      (e.redriven_at IS NULL AND (q.status::text, q.attempt_count, q.error_code)
                                 IS DISTINCT FROM (s.status, s.attempt_count, s.error_code))
      OR (e.redriven_at IS NOT NULL AND q.status = 'dead_letter' AND q.error_message = s.error_message
          AND q.attempt_count <> s.attempt_count
          -- What the released workers tried may die of what it had died of.
          AND q.processing_result ->> 'revision' IS DISTINCT FROM r.to_revision)
      OR (e.status IN ('completed', 'dead_letter') AND q.status::text <> e.status)
  );

-- unsettled --
-- Planned dead letters that were sent to the workers and have not come to rest.
SELECT e.event_id AS id
FROM runbook.release_event e
JOIN tds_sync_queue q ON q.id = e.event_id
WHERE e.release_id = :release_id AND e.redriven_at IS NOT NULL AND q.status IN ('pending', 'processing', 'retry');

-- buried --
-- Events that became dead letters since the start, with an error that they did not have before.
SELECT q.id, q.error_message, q.error_code
FROM tds_sync_queue q
LEFT JOIN rehearsal.seeded s ON s.id = q.id
WHERE q.status = 'dead_letter' AND (s.error_message, s.status) IS DISTINCT FROM (q.error_message, 'dead_letter');

-- damaged --
-- Which of :sent the workers of :revision took and never completed. To wait for a parent is no damage.
SELECT q.id
FROM tds_sync_queue q
WHERE q.id = ANY (CAST(:sent AS uuid[]))
  AND EXISTS (
      SELECT FROM rehearsal.taken t JOIN runbook.worker w ON w.owner = t.owner
      WHERE t.event_id = q.id AND w.revision = :revision
  )
  AND q.error_code IS DISTINCT FROM 'missing_parent'
  -- Only our workers write an outcome: who completed it later may have left the revision of a failed attempt.
  AND NOT (q.status = 'completed' AND coalesce(q.processing_result ? 'outcome', false)
           AND q.processing_result ->> 'revision' = :revision);

-- rows --
-- Records whose row in the ERP is not the newest of the versions that were applied since the start.
WITH bodies AS (
    SELECT lower(q.entity_type::text) AS entity, q.source_entity_id AS key, q.created_at,
        -- The ERP's own workers write no version stamp, and no outcome.
        coalesce(q.processing_result ? 'outcome', false) AS is_stamped,
        -- The webhook's body wraps the record in its kind.
        (SELECT value FROM jsonb_each(i.raw_payload) WHERE jsonb_typeof(value) = 'object' LIMIT 1) AS record
    FROM tds_sync_queue q
    JOIN tds_inbox_events i ON i.id = q.inbox_event_id
    WHERE q.status = 'completed'
      AND EXISTS (SELECT FROM rehearsal.change c WHERE c.event_id = q.id)
      AND i.webhook_headers::text NOT LIKE '%ynthetic%'
), applied AS (
    SELECT DISTINCT ON (entity, key) entity, key, record, is_stamped
    FROM bodies
    ORDER BY entity, key, CAST(record ->> 'last_modified_time' AS timestamptz) DESC NULLS LAST, created_at DESC
), expected AS (
    SELECT entity, key, is_stamped, CASE entity
        WHEN 'product' THEN ARRAY[record ->> 'name', record ->> 'sku', trim_scale((record ->> 'rate')::numeric)::text]
        WHEN 'customer' THEN ARRAY[record ->> 'contact_name', record ->> 'email']
        WHEN 'invoice' THEN ARRAY[record ->> 'invoice_number', trim_scale((record ->> 'total')::numeric)::text]
        WHEN 'order' THEN ARRAY[record ->> 'salesorder_number', trim_scale((record ->> 'total')::numeric)::text]
        WHEN 'payment' THEN ARRAY[record ->> 'payment_number', trim_scale((record ->> 'amount')::numeric)::text]
    END AS wanted, CAST(record ->> 'last_modified_time' AS timestamptz) AS modified_at
    FROM applied
), actual AS (
    SELECT 'product' AS entity, zoho_item_id AS key, ARRAY[name, sku, trim_scale(price)::text] AS stored,
           last_modified_time AS modified_at FROM products
    UNION ALL
    SELECT 'customer', zoho_contact_id, ARRAY[contact_name, email], last_modified_time FROM customers
    UNION ALL
    SELECT 'invoice', zoho_invoice_id, ARRAY[invoice_number, trim_scale(total)::text], last_modified_time FROM invoices
    UNION ALL
    SELECT 'order', zoho_salesorder_id, ARRAY[order_number, trim_scale(total_amount)::text], last_modified_time
    FROM sales_orders
    UNION ALL
    SELECT 'payment', zoho_payment_id, ARRAY[payment_number, trim_scale(amount)::text], last_modified_time
    FROM invoice_payments
)
SELECT e.entity, e.key, e.wanted::text AS wanted, a.stored::text AS stored
FROM expected e
LEFT JOIN actual a ON a.entity = e.entity AND a.key = e.key
WHERE e.wanted IS NOT NULL
  AND (a.stored IS DISTINCT FROM e.wanted OR (e.is_stamped AND a.modified_at IS DISTINCT FROM e.modified_at));
