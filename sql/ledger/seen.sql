-- seen: what the ledger knows of a backup, before a new result is recorded.
SELECT backups.number, backups.quick_at, backups.deep_at, backups.restore_at, results.failed, results.level, results.first_at,
       results.good_at
  FROM backups LEFT JOIN results ON results.backup = backups.number
 WHERE backups.id = ?1;
