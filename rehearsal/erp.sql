-- The ERP's own tables, as the application made them long before there was a runbook: the sync pipeline (tds_*)
-- and the narrow entity tables that its handlers write. Nothing of ours is in here; `runbook db adopt` adds that.
-- Ids of the pipeline come from the application, so its keys have no default.

CREATE TYPE tds_event_status AS ENUM ('pending', 'processing', 'completed', 'failed', 'retry', 'dead_letter');
CREATE TYPE tds_source_type AS ENUM ('zoho', 'manual', 'scheduled', 'reconciliation');
CREATE TYPE tds_operation_type AS ENUM ('create', 'update', 'delete', 'upsert');
CREATE TYPE tds_alert_severity AS ENUM ('info', 'warning', 'error', 'critical');
-- Mixed case: the last four were added later by somebody who spelt them differently.
CREATE TYPE tds_entity_type AS ENUM (
    'product', 'customer', 'invoice', 'bill', 'credit_note', 'stock_adjustment', 'price_list', 'branch', 'order',
    'USER', 'PAYMENT', 'VENDOR', 'SUPPLIER'
);

-- What arrived, as it arrived.
CREATE TABLE tds_inbox_events (
    id                 uuid PRIMARY KEY,
    source_type        tds_source_type NOT NULL,
    entity_type        tds_entity_type NOT NULL,
    source_entity_id   text NOT NULL,
    raw_payload        jsonb NOT NULL,
    idempotency_key    text,
    content_hash       text NOT NULL,
    webhook_headers    jsonb,
    signature_verified boolean DEFAULT false,
    ip_address         varchar(45),
    received_at        timestamptz NOT NULL DEFAULT now(),
    processed_at       timestamptz,
    is_valid           boolean DEFAULT false,
    validation_errors  jsonb,
    moved_to_queue     boolean DEFAULT false
);
CREATE INDEX ix_tds_inbox_events_source_type ON tds_inbox_events (source_type);
CREATE INDEX ix_tds_inbox_events_entity_type ON tds_inbox_events (entity_type);
CREATE INDEX ix_tds_inbox_events_source_entity_id ON tds_inbox_events (source_entity_id);
CREATE UNIQUE INDEX ix_tds_inbox_events_idempotency_key ON tds_inbox_events (idempotency_key);
CREATE INDEX ix_tds_inbox_events_content_hash ON tds_inbox_events (content_hash);
CREATE INDEX idx_tds_inbox_content_hash ON tds_inbox_events (content_hash);
CREATE INDEX ix_tds_inbox_events_received_at ON tds_inbox_events (received_at);
CREATE INDEX idx_tds_inbox_received_at ON tds_inbox_events (received_at);
CREATE INDEX idx_tds_inbox_source_entity ON tds_inbox_events (source_type, source_entity_id);

-- One pass of a bulk synchronisation.
CREATE TABLE tds_sync_runs (
    id                     uuid PRIMARY KEY,
    run_type               tds_source_type NOT NULL,
    entity_type            tds_entity_type,
    status                 tds_event_status NOT NULL DEFAULT 'pending',
    worker_id              text,
    total_events           integer NOT NULL DEFAULT 0,
    processed_events       integer NOT NULL DEFAULT 0,
    failed_events          integer NOT NULL DEFAULT 0,
    skipped_events         integer NOT NULL DEFAULT 0,
    started_at             timestamptz NOT NULL DEFAULT now(),
    completed_at           timestamptz,
    duration_seconds       integer,
    configuration_snapshot jsonb,
    error_summary          jsonb
);
CREATE INDEX idx_tds_runs_status_started ON tds_sync_runs (status, started_at);
CREATE INDEX idx_tds_runs_type_entity ON tds_sync_runs (run_type, entity_type, started_at);
CREATE INDEX ix_tds_sync_runs_run_type ON tds_sync_runs (run_type);
CREATE INDEX ix_tds_sync_runs_entity_type ON tds_sync_runs (entity_type);
CREATE INDEX ix_tds_sync_runs_status ON tds_sync_runs (status);
CREATE INDEX ix_tds_sync_runs_started_at ON tds_sync_runs (started_at);

-- The queue. It has neither a source version nor any uniqueness on the record it is about.
CREATE TABLE tds_sync_queue (
    id                 uuid PRIMARY KEY,
    inbox_event_id     uuid NOT NULL REFERENCES tds_inbox_events,
    sync_run_id        uuid REFERENCES tds_sync_runs,
    entity_type        tds_entity_type NOT NULL,
    source_entity_id   text NOT NULL,
    operation_type     tds_operation_type NOT NULL,
    validated_payload  jsonb NOT NULL,
    status             tds_event_status NOT NULL DEFAULT 'pending',
    priority           integer NOT NULL DEFAULT 5 CONSTRAINT check_priority_range CHECK (priority BETWEEN 1 AND 10),
    attempt_count      integer NOT NULL DEFAULT 0 CONSTRAINT check_attempt_count CHECK (attempt_count >= 0),
    max_retry_attempts integer NOT NULL DEFAULT 3,
    next_retry_at      timestamptz,
    locked_by          text,
    lock_expires_at    timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now(),
    started_at         timestamptz,
    completed_at       timestamptz,
    target_entity_id   text,
    processing_result  jsonb,
    error_message      text,
    error_code         varchar(50)
);
CREATE INDEX ix_tds_sync_queue_inbox_event_id ON tds_sync_queue (inbox_event_id);
CREATE INDEX ix_tds_sync_queue_sync_run_id ON tds_sync_queue (sync_run_id);
CREATE INDEX ix_tds_sync_queue_entity_type ON tds_sync_queue (entity_type);
CREATE INDEX ix_tds_sync_queue_source_entity_id ON tds_sync_queue (source_entity_id);
CREATE INDEX ix_tds_sync_queue_status ON tds_sync_queue (status);
CREATE INDEX ix_tds_sync_queue_priority ON tds_sync_queue (priority);
CREATE INDEX ix_tds_sync_queue_next_retry_at ON tds_sync_queue (next_retry_at);
CREATE INDEX idx_tds_queue_next_retry ON tds_sync_queue (next_retry_at);
CREATE INDEX ix_tds_sync_queue_lock_expires_at ON tds_sync_queue (lock_expires_at);
CREATE INDEX ix_tds_sync_queue_created_at ON tds_sync_queue (created_at);
CREATE INDEX idx_tds_queue_status_priority ON tds_sync_queue (status, priority, created_at);
CREATE INDEX idx_tds_queue_entity_source ON tds_sync_queue (entity_type, source_entity_id);
CREATE INDEX idx_tds_queue_locked ON tds_sync_queue (locked_by, lock_expires_at);

-- Meant for dead letters; the live worker never writes here.
CREATE TABLE tds_dead_letter_queue (
    id                 uuid PRIMARY KEY,
    sync_queue_id      uuid NOT NULL REFERENCES tds_sync_queue,
    entity_type        tds_entity_type NOT NULL,
    source_entity_id   text NOT NULL,
    failure_reason     text NOT NULL,
    error_code         varchar(50),
    total_attempts     integer NOT NULL,
    last_error_message text,
    last_stack_trace   text,
    last_payload       jsonb NOT NULL,
    resolved           boolean NOT NULL DEFAULT false,
    resolved_at        timestamptz,
    resolved_by        text,
    resolution_notes   text,
    assigned_to        text,
    created_at         timestamptz NOT NULL DEFAULT now(),
    priority           integer DEFAULT 5
);
CREATE INDEX ix_tds_dead_letter_queue_sync_queue_id ON tds_dead_letter_queue (sync_queue_id);
CREATE INDEX ix_tds_dead_letter_queue_entity_type ON tds_dead_letter_queue (entity_type);
CREATE INDEX ix_tds_dead_letter_queue_resolved ON tds_dead_letter_queue (resolved);
CREATE INDEX ix_tds_dead_letter_queue_created_at ON tds_dead_letter_queue (created_at);
CREATE INDEX idx_tds_dlq_resolved_created ON tds_dead_letter_queue (resolved, created_at);
CREATE INDEX idx_tds_dlq_entity ON tds_dead_letter_queue (entity_type, source_entity_id);

-- One line for each attempt; never written by live code.
CREATE TABLE tds_sync_logs (
    id                uuid PRIMARY KEY,
    sync_queue_id     uuid NOT NULL REFERENCES tds_sync_queue,
    sync_run_id       uuid REFERENCES tds_sync_runs,
    entity_type       tds_entity_type NOT NULL,
    source_entity_id  text NOT NULL,
    target_entity_id  text,
    operation_type    tds_operation_type NOT NULL,
    operation_status  tds_event_status NOT NULL,
    input_payload     jsonb,
    output_payload    jsonb,
    attempt_number    integer NOT NULL,
    execution_time_ms integer,
    error_message     text,
    error_code        varchar(50),
    stack_trace       text,
    worker_id         text,
    timestamp         timestamptz NOT NULL DEFAULT now(),
    context_data      jsonb
);
CREATE INDEX idx_tds_logs_entity ON tds_sync_logs (entity_type, source_entity_id);
CREATE INDEX idx_tds_logs_status_time ON tds_sync_logs (operation_status, timestamp);
CREATE INDEX ix_tds_sync_logs_timestamp ON tds_sync_logs (timestamp);

-- How far each bulk synchronisation has come.
CREATE TABLE tds_sync_cursors (
    id                  uuid PRIMARY KEY,
    source_type         tds_source_type NOT NULL,
    entity_type         tds_entity_type NOT NULL,
    last_sync_at        timestamptz NOT NULL,
    last_entity_id      text,
    last_entity_version integer,
    cursor_value        text,
    total_synced        integer NOT NULL DEFAULT 0,
    last_sync_count     integer DEFAULT 0,
    last_sync_status    tds_event_status DEFAULT 'completed',
    sync_metadata       jsonb,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz DEFAULT now()
);
CREATE UNIQUE INDEX idx_tds_cursor_source_entity ON tds_sync_cursors (source_type, entity_type);
CREATE INDEX ix_tds_sync_cursors_last_sync_at ON tds_sync_cursors (last_sync_at);

-- Who changed what; never written.
CREATE TABLE tds_audit_trail (
    id             uuid PRIMARY KEY,
    entity_type    tds_entity_type NOT NULL,
    entity_id      text NOT NULL,
    operation      tds_operation_type NOT NULL,
    old_value      jsonb,
    new_value      jsonb,
    changed_fields jsonb,
    changed_by     text,
    change_source  tds_source_type,
    changed_at     timestamptz NOT NULL DEFAULT now(),
    sync_queue_id  uuid REFERENCES tds_sync_queue,
    context        jsonb
);
CREATE INDEX idx_tds_audit_entity ON tds_audit_trail (entity_type, entity_id, changed_at);
CREATE INDEX ix_tds_audit_trail_changed_at ON tds_audit_trail (changed_at);

-- Alarms.
CREATE TABLE tds_alerts (
    id               uuid PRIMARY KEY,
    alert_type       varchar(100) NOT NULL,
    severity         tds_alert_severity NOT NULL,
    title            varchar(255) NOT NULL,
    message          text NOT NULL,
    entity_type      tds_entity_type,
    affected_count   integer,
    threshold_value  jsonb,
    actual_value     jsonb,
    is_active        boolean NOT NULL DEFAULT true,
    acknowledged     boolean DEFAULT false,
    resolved         boolean DEFAULT false,
    triggered_at     timestamptz NOT NULL DEFAULT now(),
    acknowledged_at  timestamptz,
    resolved_at      timestamptz,
    acknowledged_by  text,
    resolved_by      text,
    alert_metadata   jsonb,
    resolution_notes text
);
CREATE INDEX idx_tds_alerts_active ON tds_alerts (is_active, severity, triggered_at);
CREATE INDEX idx_tds_alerts_type ON tds_alerts (alert_type, triggered_at);

-- Numbers over time.
CREATE TABLE tds_metrics (
    id          uuid PRIMARY KEY,
    metric_name varchar(100) NOT NULL,
    metric_type varchar(50) NOT NULL,
    entity_type tds_entity_type,
    source_type tds_source_type,
    value       jsonb NOT NULL,
    unit        varchar(50),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    tags        jsonb,
    dimensions  jsonb
);
CREATE INDEX idx_tds_metrics_name_time ON tds_metrics (metric_name, recorded_at);
CREATE INDEX idx_tds_metrics_entity_time ON tds_metrics (entity_type, recorded_at);
CREATE INDEX ix_tds_metrics_recorded_at ON tds_metrics (recorded_at);

-- Settings of the pipeline.
CREATE TABLE tds_configuration (
    id                uuid PRIMARY KEY,
    config_key        varchar(100) NOT NULL,
    config_value      jsonb NOT NULL,
    value_type        varchar(50) NOT NULL,
    description       text,
    category          varchar(50),
    validation_schema jsonb,
    is_sensitive      boolean DEFAULT false,
    is_active         boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz DEFAULT now(),
    updated_by        text,
    version           integer NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX ix_tds_configuration_config_key ON tds_configuration (config_key);
CREATE INDEX idx_tds_config_category ON tds_configuration (category, is_active);

-- The entity tables, no wider than what the ERP's handlers write.

CREATE TABLE products (
    id             serial PRIMARY KEY,
    zoho_item_id   text UNIQUE,
    name           text NOT NULL DEFAULT '',
    sku            text DEFAULT '',
    description    text DEFAULT '',
    price          numeric,
    stock_quantity numeric,
    is_active      boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz
);

CREATE TABLE customers (
    id               serial PRIMARY KEY,
    zoho_contact_id  text UNIQUE,
    contact_name     text DEFAULT '',
    company_name     text DEFAULT '',
    email            text DEFAULT '',
    phone            text DEFAULT '',
    billing_address  jsonb,
    shipping_address jsonb,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz
);

CREATE TABLE invoices (
    id              serial PRIMARY KEY,
    zoho_invoice_id text UNIQUE,
    invoice_number  text DEFAULT '',
    customer_id     text DEFAULT '',
    invoice_date    date,
    due_date        date,
    total           numeric,
    status          text DEFAULT 'draft',
    zoho_data       jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz
);

CREATE TABLE sales_orders (
    id                     serial PRIMARY KEY,
    order_number           text UNIQUE,
    customer_id            integer REFERENCES customers,
    branch_id              integer NOT NULL DEFAULT 1,
    warehouse_id           integer NOT NULL DEFAULT 1,
    order_date             date,
    expected_delivery_date date,
    actual_delivery_date   date,
    status                 text NOT NULL DEFAULT 'DRAFT',
    payment_status         text NOT NULL DEFAULT 'PENDING',
    payment_method         text,
    subtotal               numeric,
    discount_percentage    numeric,
    discount_amount        numeric,
    tax_percentage         numeric,
    tax_amount             numeric,
    total_amount           numeric,
    paid_amount            numeric NOT NULL DEFAULT 0,
    notes                  text,
    created_by             integer NOT NULL DEFAULT 1,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz
);

CREATE TABLE sales_items (
    id                  serial PRIMARY KEY,
    sales_order_id      integer NOT NULL REFERENCES sales_orders,
    product_id          integer REFERENCES products,
    quantity            numeric,
    unit_price          numeric,
    discount_percentage numeric,
    discount_amount     numeric,
    line_total          numeric,
    delivered_quantity  numeric,
    notes               text
);
CREATE INDEX ix_sales_items_sales_order_id ON sales_items (sales_order_id);

-- The link to an invoice carries no foreign key: the application's own model points at another table.
CREATE TABLE invoice_payments (
    id                  serial PRIMARY KEY,
    payment_number      text UNIQUE,
    sales_invoice_id    integer,
    purchase_invoice_id integer,
    payment_date        date,
    amount              numeric,
    currency_id         integer NOT NULL DEFAULT 1,
    exchange_rate       numeric,
    payment_method      text,
    reference_number    text,
    bank_account        text,
    check_number        text,
    check_date          date,
    notes               text,
    created_by          integer NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz
);

-- Vendors and users were made by their handlers at the first webhook, with times without a zone.
CREATE TABLE vendors (
    id               serial PRIMARY KEY,
    zoho_vendor_id   varchar NOT NULL UNIQUE,
    vendor_name      varchar NOT NULL,
    company_name     varchar,
    email            varchar,
    phone            varchar,
    billing_address  jsonb,
    shipping_address jsonb,
    payment_terms    varchar DEFAULT 'NET_30',
    currency_code    varchar DEFAULT 'IQD',
    is_active        boolean DEFAULT true,
    created_at       timestamp DEFAULT now(),
    updated_at       timestamp DEFAULT now()
);

CREATE TABLE zoho_users (
    id           serial PRIMARY KEY,
    zoho_user_id varchar NOT NULL UNIQUE,
    name         varchar NOT NULL,
    email        varchar NOT NULL DEFAULT '',
    role         varchar,
    status       varchar DEFAULT 'active',
    zoho_data    jsonb,
    created_at   timestamp DEFAULT now(),
    updated_at   timestamp DEFAULT now()
);

CREATE TABLE pricelists (
    id                serial PRIMARY KEY,
    zoho_pricelist_id text UNIQUE,
    name              text DEFAULT '',
    currency          text DEFAULT 'IQD',
    is_active         boolean DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz
);

CREATE TABLE product_prices (
    id                  serial PRIMARY KEY,
    product_id          integer NOT NULL REFERENCES products,
    pricelist_id        integer NOT NULL REFERENCES pricelists,
    price               numeric,
    discount_percentage numeric,
    currency            text DEFAULT 'USD',
    updated_at          timestamptz,
    UNIQUE (product_id, pricelist_id)
);

-- The three kinds below had a table in an earlier worker; today's handlers for them are empty.
CREATE TABLE bills (
    id             serial PRIMARY KEY,
    zoho_bill_id   text UNIQUE,
    bill_number    text,
    zoho_vendor_id text,
    bill_date      date,
    due_date       date,
    total          numeric,
    status         text,
    zoho_data      jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz
);

CREATE TABLE credit_notes (
    id                 serial PRIMARY KEY,
    zoho_creditnote_id text UNIQUE,
    creditnote_number  text,
    zoho_customer_id   text,
    creditnote_date    date,
    total              numeric,
    status             text,
    zoho_data          jsonb,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz
);

CREATE TABLE stock_adjustments (
    id                 serial PRIMARY KEY,
    zoho_adjustment_id text UNIQUE,
    zoho_item_id       text,
    quantity_adjusted  numeric,
    adjustment_type    text DEFAULT 'quantity',
    reason             text,
    adjustment_date    date,
    zoho_data          jsonb,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz
);
