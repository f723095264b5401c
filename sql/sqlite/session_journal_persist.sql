-- session_journal_persist: keeps the journal between the transactions of a session, so that a transaction does not create a file.
-- Only if the mode is DELETE, the default. It applies to this connection, and a crash is rolled back as before.
PRAGMA journal_mode = PERSIST;
