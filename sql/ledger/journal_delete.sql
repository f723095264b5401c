-- journal_delete: between two runs, the ledger is one file, which can be copied, and read in a read-only directory.
PRAGMA journal_mode = DELETE;
