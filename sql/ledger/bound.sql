-- bound: the Cinder database that the ledger belongs to, and when its live backups were read last.
SELECT identity, database, read_at FROM ledger;
