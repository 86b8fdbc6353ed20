-- The time over which a limit counts what was taken. Ten seconds where nobody says otherwise; in a rehearsal less, because
-- its time runs faster. Never longer: workers of an older version always count over ten seconds.
ALTER TABLE runbook.intake ADD COLUMN window_seconds double precision DEFAULT 10
    CONSTRAINT counts_over_ten_seconds_or_less CHECK (window_seconds > 0 AND window_seconds <= 10);
