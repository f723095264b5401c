-- backup_metadata_lock: locks one row of a backup's metadata until the transaction ends, and reads it, whether or not it is deleted.
-- FOR UPDATE reads the newest committed row.
SELECT id, backup_id, deleted
  FROM backup_metadata
 WHERE id = ?
   FOR UPDATE;
