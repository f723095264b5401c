-- due_create: a temporary table for the backups that are due, with their urgency.
CREATE TEMP TABLE due (
    number      INTEGER PRIMARY KEY,
    chain       INTEGER NOT NULL,
    urgency     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
);
