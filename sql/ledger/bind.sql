-- bind: binds a new ledger to a Cinder database.
INSERT OR IGNORE INTO ledger (only, identity, database, created_at) VALUES (1, ?1, ?2, ?3);
