-- The three database users of a deployment, with the least privileges that they need.
--
-- Run it as the owner of the ERP's tables, connected to the ERP's database, after `runbook db adopt`. Run it again after
-- the first `runbook db upgrade`: only then do the ledger's tables exist. Every statement may be repeated.
-- Set the passwords afterwards with psql's \password. The ERP's tables are expected in the schema public.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['tds_controller', 'tds_worker', 'tds_receiver'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- For the schema `runbook`, the ledger: `runbook db upgrade` creates it and migrates it.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO tds_controller', current_database());
END $$;
GRANT USAGE ON SCHEMA public TO tds_controller, tds_worker, tds_receiver;

-- The controller (all commands with -e): dead letters go back, synthetic events go in, the canary's row is compared.
GRANT SELECT, INSERT, UPDATE ON tds_sync_queue TO tds_controller;
GRANT SELECT, INSERT ON tds_inbox_events TO tds_controller;
GRANT SELECT, UPDATE ON tds_dead_letter_queue TO tds_controller;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO tds_controller;

-- The receiver (`runbook receive`): a webhook that came before is recognized, a new one is written.
GRANT SELECT, INSERT ON tds_inbox_events, tds_sync_queue TO tds_receiver;

-- The worker (`runbook worker`): an event is claimed and settled, and closes its row among the dead letters.
GRANT SELECT, UPDATE ON tds_sync_queue, tds_dead_letter_queue TO tds_worker;
GRANT SELECT, INSERT, UPDATE ON
    products, customers, vendors, zoho_users, pricelists, sales_orders, invoices, bills, credit_notes,
    invoice_payments, stock_adjustments
    TO tds_worker;
-- Lines are replaced, never updated.
GRANT SELECT, INSERT, DELETE ON
    product_stock, product_prices, product_price_brackets, customer_contact_persons, vendor_contact_persons,
    sales_items, invoice_items, bill_items, credit_note_items, payment_applications, stock_adjustment_items
    TO tds_worker;
-- Only for ids of the type serial; identity columns need nothing.
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tds_worker;

DO $$
BEGIN
    IF to_regclass('runbook.worker') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA runbook TO tds_worker;
        -- The worker's heartbeat, and the limits that a controller sets.
        GRANT SELECT, INSERT, UPDATE ON runbook.worker TO tds_worker;
        GRANT SELECT, UPDATE ON runbook.intake TO tds_worker;
        -- What it has in hand. Without this it leases each batch, which costs one more change of each event.
        GRANT SELECT, INSERT, DELETE ON runbook.in_hand TO tds_worker;
    END IF;
END $$;
