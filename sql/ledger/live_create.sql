-- live_create: temporary tables for one pass over the live backups: the numbers of those whose rows in the ledger are up to date, and the
-- ids of the others in the order in which they were read. Each row says whether the run selects the backup.
CREATE TEMP TABLE live (
    number      INTEGER PRIMARY KEY,
    wanted      INTEGER NOT NULL
);
CREATE TEMP TABLE unread (
    id          TEXT NOT NULL,
    wanted      INTEGER NOT NULL
);
