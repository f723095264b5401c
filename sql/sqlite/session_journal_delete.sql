-- session_journal_delete: deletes the journal at the end of a session and restores the default mode, which Cinder's own connections use.
PRAGMA journal_mode = DELETE;
