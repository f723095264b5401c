-- session_journal_mode: reads how the file keeps its rollback journal.
PRAGMA journal_mode;
