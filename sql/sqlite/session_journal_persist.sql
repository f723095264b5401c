-- session_journal_persist: the journal stays between the transactions of a run, so that each costs no new file.
-- Only where the mode is DELETE, the default; it holds for this connection alone, and a crash is rolled back as ever.
PRAGMA journal_mode = PERSIST;
