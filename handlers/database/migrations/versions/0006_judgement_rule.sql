-- By which rule a judgement was made. The gate looks every ten seconds: who lists the looks must not read the inputs of each.
ALTER TABLE runbook.judgement ADD COLUMN rule text GENERATED ALWAYS AS (inputs ->> 'rule') STORED;
