-- session_query_only_check: reads whether SQLite refuses writes in this session.
PRAGMA query_only;
