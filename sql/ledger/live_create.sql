-- live_create: temporary tables for one pass over the live backups, with whether the run selects each: the numbers of those that the ledger
-- knows as they are, and the ids of the others in the order in which they were read.
CREATE TEMP TABLE live (
    number      INTEGER PRIMARY KEY,
    wanted      INTEGER NOT NULL
);
CREATE TEMP TABLE unread (
    id          TEXT NOT NULL,
    wanted      INTEGER NOT NULL
);
