-- inbox --
-- One webhook as it was received: the body whole.
INSERT INTO tds_inbox_events
    (id, source_type, entity_type, source_entity_id, raw_payload, idempotency_key, content_hash,
     webhook_headers, signature_verified, ip_address, received_at)
VALUES
    (:inbox, 'zoho', CAST(:entity AS tds_entity_type), :key, CAST(:body AS jsonb), :idempotency_key, :content_hash,
     jsonb_build_object('content-type', 'application/json'), true, '127.0.0.1', :created_at);

-- queue --
-- The same webhook in the queue: the bare record, and how far it has come.
INSERT INTO tds_sync_queue
    (id, inbox_event_id, entity_type, source_entity_id, operation_type, validated_payload, status, priority,
     attempt_count, created_at, started_at, completed_at, target_entity_id, error_message, error_code)
VALUES
    (:id, :inbox, CAST(:entity AS tds_entity_type), :key, 'update', CAST(:payload AS jsonb),
     CAST(:status AS tds_event_status), 5, :attempts, :created_at, :started_at, :completed_at, :target, :error,
     :error_code);

-- call_workers --
-- Wake the workers that listen; they would look by themselves a second later.
SELECT pg_notify('tds_sync_queue', '');

-- product --
-- An item as the old code wrote it.
INSERT INTO products (zoho_item_id, name, sku, description, price, stock_quantity, updated_at)
VALUES (:item_id, :name, :sku, '', :rate, :stock_on_hand, now());

-- customer --
-- A customer as the old code wrote it.
INSERT INTO customers (zoho_contact_id, contact_name, company_name, email, phone, updated_at)
VALUES (:contact_id, :contact_name, '', :email, '', now());

-- vendor --
-- A vendor as the old code wrote it.
INSERT INTO vendors (zoho_vendor_id, vendor_name, email) VALUES (:contact_id, :contact_name, :email);

-- zoho_user --
-- A user as the old code wrote it.
INSERT INTO zoho_users (zoho_user_id, name, email) VALUES (:user_id, :name, :email);

-- invoice --
-- An invoice as the old code wrote it.
INSERT INTO invoices (zoho_invoice_id, invoice_number, customer_id, total, status, updated_at)
VALUES (:invoice_id, :invoice_number, :customer_id, :total, 'sent', now());

-- order --
-- An order as the old code wrote it, with the source's id, whose column we have added.
INSERT INTO sales_orders (zoho_salesorder_id, order_number, customer_id, total_amount, updated_at)
VALUES (:salesorder_id, :salesorder_number,
        (SELECT id FROM customers WHERE zoho_contact_id = :customer_id), :total, now());

-- payment --
-- A payment as the old code wrote it, with the source's id, whose column we have added.
INSERT INTO invoice_payments (zoho_payment_id, payment_number, amount, updated_at)
VALUES (:payment_id, :payment_number, :amount, now());
