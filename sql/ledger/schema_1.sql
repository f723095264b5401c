-- schema_1: creates the tables of a ledger, and marks the file as one (version 1).
-- Times are seconds since 1970 in UTC. Levels are 0 (quick), 1 (deep) and 2 (restore).
-- One row: the Cinder database that the ledger belongs to, and whether scrubbing is paused.
CREATE TABLE ledger (
    only        INTEGER PRIMARY KEY CHECK (only = 1),
    identity    TEXT NOT NULL,
    database    TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    read_at     INTEGER,
    paused_at   INTEGER,
    paused_by   TEXT,
    paused_why  TEXT
) STRICT;

-- The back ends of backups. The container is empty if each backup has a directory of its own.
CREATE TABLE backends (
    number      INTEGER PRIMARY KEY,
    driver      TEXT NOT NULL,
    container   TEXT NOT NULL,
    UNIQUE (driver, container)
) STRICT;

CREATE TABLE projects (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE
) STRICT;

-- The runs. One without an end was killed.
CREATE TABLE runs (
    number      INTEGER PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    level       INTEGER NOT NULL,
    due         INTEGER NOT NULL DEFAULT 0,
    intact      INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    rotted      INTEGER NOT NULL DEFAULT 0,
    limited     INTEGER NOT NULL DEFAULT 0,
    unanswered  INTEGER NOT NULL DEFAULT 0,
    bytes       INTEGER NOT NULL DEFAULT 0,
    stopped_by  TEXT
) STRICT;

-- The live backups, and those that were deleted in the last months. chain is the number of the oldest known ancestor, for an order that
-- keeps chains together. claim is the place of a backup in the queue of a run that is checking it.
CREATE TABLE backups (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    parent_id   TEXT,
    chain       INTEGER NOT NULL,
    status      TEXT,
    project     INTEGER REFERENCES projects,
    backend     INTEGER REFERENCES backends,
    created_at  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    gone_at     INTEGER,
    quick_at    INTEGER,
    deep_at     INTEGER,
    restore_at  INTEGER,
    limited_at  INTEGER,
    limited_level INTEGER,
    unanswered_at INTEGER,
    claim       INTEGER
) STRICT;

CREATE INDEX backups_by_claim ON backups (claim) WHERE claim IS NOT NULL;

-- The results that are needed again: every failure, and every result about a backup that is not available, which a plan may need. The
-- document is the check result as JSON, with the rows of its chain.
CREATE TABLE results (
    backup      INTEGER PRIMARY KEY REFERENCES backups ON DELETE CASCADE,
    run         INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    verdict     TEXT NOT NULL,
    level       INTEGER NOT NULL,
    status      TEXT,
    first_at    INTEGER NOT NULL,
    found_at    INTEGER NOT NULL,
    good_at     INTEGER,
    problem     TEXT,
    settle      INTEGER NOT NULL,
    document    TEXT NOT NULL
) STRICT;

PRAGMA application_id = 1128418386;
PRAGMA user_version = 1;
