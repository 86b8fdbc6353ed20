-- completed_since --
-- Whether any worker has completed an event since then, of those that came in the day before it.
SELECT EXISTS (
    SELECT FROM tds_sync_queue q
    WHERE q.created_at >= CAST(:since AS timestamptz) - interval '1 day' AND q.status = 'completed'
      AND q.completed_at >= CAST(:since AS timestamptz)
);
