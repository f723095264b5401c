-- session_query_only_check: whether SQLite holds the session read-only.
PRAGMA query_only;
