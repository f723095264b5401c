-- session_query_only_off: makes the session writable again.
PRAGMA query_only = OFF;
