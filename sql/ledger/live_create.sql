-- live_create: a temporary table for the live backups of one pass over the Cinder database, and whether the run selects them.
CREATE TEMP TABLE live (
    id          TEXT PRIMARY KEY,
    parent_id   TEXT,
    status      TEXT,
    wanted      INTEGER NOT NULL
) WITHOUT ROWID;
