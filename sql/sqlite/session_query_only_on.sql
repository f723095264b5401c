-- session_query_only_on: makes the session read-only, held so by SQLite itself.
PRAGMA query_only = ON;
