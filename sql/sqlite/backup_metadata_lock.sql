-- backup_metadata_lock: locks one row of a backup's metadata until the transaction ends, and reads it, whether or not it is deleted.
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, backup_id, deleted
  FROM backup_metadata
 WHERE id = ?1;
