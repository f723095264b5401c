-- tables: counts what a file contains. A new ledger is empty.
SELECT count(*) FROM sqlite_master;
