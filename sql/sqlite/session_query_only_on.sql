-- session_query_only_on: makes SQLite refuse writes in this session.
PRAGMA query_only = ON;
