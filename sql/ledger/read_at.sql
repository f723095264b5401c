-- read_at: notes when the live backups were read.
UPDATE ledger SET read_at = ?1;
