-- session_journal_mode: how the file keeps what a crash would need to roll back.
PRAGMA journal_mode;
