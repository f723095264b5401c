-- session_journal_delete: takes the journal away at the end of a run, as Cinder's own connections do.
PRAGMA journal_mode = DELETE;
