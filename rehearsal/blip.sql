-- A fault of the world: while a row of the table is not over, most types cannot be written. A retry cures it.

CREATE TABLE rehearsal.blip (until timestamptz NOT NULL);

CREATE FUNCTION rehearsal.refuse_while_blip() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM rehearsal.blip WHERE until > clock_timestamp()) THEN
        RAISE EXCEPTION 'could not serialize access due to concurrent update' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NULL;
END
$$;

-- Customers and vendors can still be written.
CREATE TRIGGER rehearsal_blip BEFORE INSERT OR UPDATE ON products
    FOR EACH STATEMENT EXECUTE FUNCTION rehearsal.refuse_while_blip();
CREATE TRIGGER rehearsal_blip BEFORE INSERT OR UPDATE ON invoices
    FOR EACH STATEMENT EXECUTE FUNCTION rehearsal.refuse_while_blip();
CREATE TRIGGER rehearsal_blip BEFORE INSERT OR UPDATE ON sales_orders
    FOR EACH STATEMENT EXECUTE FUNCTION rehearsal.refuse_while_blip();
CREATE TRIGGER rehearsal_blip BEFORE INSERT OR UPDATE ON invoice_payments
    FOR EACH STATEMENT EXECUTE FUNCTION rehearsal.refuse_while_blip();
