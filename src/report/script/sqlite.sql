-- Stop at the first error; wait for another writer's lock for up to 30 s.
.bail on
.timeout 30000
-- A count other than 1 breaks the constraint, and with it the transaction.
CREATE TEMP TABLE IF NOT EXISTS cbr_guard (
    place TEXT NOT NULL,
    matched INTEGER NOT NULL,
    CONSTRAINT "an UPDATE did not match exactly one row; its unit is rolled back" CHECK (matched = 1)
);
-- When a row was changed that a later unit changes, too.
CREATE TEMP TABLE IF NOT EXISTS cbr_row (
    number INTEGER PRIMARY KEY,
    updated_at TEXT
);
