-- snapshot_lock: locks one live snapshot until the transaction ends, and reads it.
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE id = ?1
   AND deleted = 0;
