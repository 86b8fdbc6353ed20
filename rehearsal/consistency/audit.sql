-- A record of the queue that the release knows nothing of: what was there at the start, every change of a status, and
-- who has taken what.

CREATE SCHEMA rehearsal;

CREATE TABLE rehearsal.seeded AS
SELECT id, status::text AS status, attempt_count, error_code, error_message FROM tds_sync_queue;

CREATE TABLE rehearsal.change (
    event_id uuid NOT NULL,
    before   text NOT NULL,
    after    text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_by_event ON rehearsal.change (event_id);

-- Which worker has taken which event: by a lease, or in hand.
CREATE TABLE rehearsal.taken (
    event_id uuid NOT NULL,
    owner    text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX taken_by_event ON rehearsal.taken (event_id);

CREATE FUNCTION rehearsal.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rehearsal.change (event_id, before, after) VALUES (new.id, old.status::text, new.status::text);
    IF new.status = 'processing' AND new.locked_by IS NOT NULL THEN
        INSERT INTO rehearsal.taken (event_id, owner) VALUES (new.id, new.locked_by);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER rehearsal_note_change AFTER UPDATE OF status ON tds_sync_queue
    FOR EACH ROW WHEN (old.status IS DISTINCT FROM new.status) EXECUTE FUNCTION rehearsal.note_change();

CREATE FUNCTION rehearsal.note_taken() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rehearsal.taken (event_id, owner) SELECT unnest(new.ids), new.owner;
    RETURN NULL;
END
$$;

CREATE TRIGGER rehearsal_note_taken AFTER INSERT ON runbook.in_hand
    FOR EACH ROW EXECUTE FUNCTION rehearsal.note_taken();
