-- journal_wal: while a run writes, others can read, and a commit does not wait for the disk.
PRAGMA journal_mode = WAL;
