-- journal_delete: between two runs, the ledger is one file, which can be copied and read from a read-only place.
PRAGMA journal_mode = DELETE;
