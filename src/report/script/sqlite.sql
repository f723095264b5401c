-- Stop at the first error. Wait up to 30 s for the lock of another writer.
.bail on
.timeout 30000
-- Any count but 1 violates the constraint and rolls the transaction back.
CREATE TEMP TABLE IF NOT EXISTS cbr_guard (
    place TEXT NOT NULL,
    matched INTEGER NOT NULL,
    CONSTRAINT "an UPDATE did not match exactly one row; its unit is rolled back" CHECK (matched = 1)
);
-- The updated_at of rows that a later unit changes too.
CREATE TEMP TABLE IF NOT EXISTS cbr_row (
    number INTEGER PRIMARY KEY,
    updated_at TEXT
);
